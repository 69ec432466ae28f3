"""The whole config, and the rules that hold between its sections."""

from typing import Self

from pydantic import model_validator

from fedtrain.config.attackers import AttackersSection
from fedtrain.config.audit import AuditSection
from fedtrain.config.compression import CompressionSection, verify_compression
from fedtrain.config.continual import ContinualSection, verify_continual
from fedtrain.config.corrected import verify_corrected
from fedtrain.config.data import DataSection, PartitionSection
from fedtrain.config.federation import AVERAGING_STRATEGIES, FederationSection
from fedtrain.config.groups import verify_groups
from fedtrain.config.learning import check_learning
from fedtrain.config.model import ModelSection
from fedtrain.config.personalisation import PersonalisationSection, verify_personalisation
from fedtrain.config.privacy import PrivacySection
from fedtrain.config.run import RunSection, SimulationSection
from fedtrain.config.section import Section
from fedtrain.config.secure_aggregation import SecureAggregationSection
from fedtrain.config.statistics import StatisticsSection, verify_statistics
from fedtrain.config.training import TrainingSection


class Config(Section):
    """A whole run."""

    run: RunSection = RunSection()
    data: DataSection = DataSection()
    partition: PartitionSection = PartitionSection(sites=10)
    model: ModelSection = ModelSection()
    training: TrainingSection = TrainingSection()
    federation: FederationSection = FederationSection()
    privacy: PrivacySection = PrivacySection()
    secure_aggregation: SecureAggregationSection = SecureAggregationSection()
    audit: AuditSection = AuditSection()
    simulation: SimulationSection = SimulationSection()
    personalisation: PersonalisationSection | None = None
    attackers: AttackersSection | None = None
    continual: ContinualSection | None = None
    compression: CompressionSection | None = None
    statistics: StatisticsSection | None = None

    @property
    def rounds(self) -> int:
        """Secure sums or averages that the run is planned for: a question is one."""
        return self.federation.rounds if self.statistics is None else 1

    @model_validator(mode="after")
    def _check(self) -> Self:
        sites, cohort = self.partition.sites, self.federation.sites_per_round
        if sites is not None and cohort is not None and cohort > sites:
            raise ValueError(
                f"federation.sites_per_round = {cohort} is above partition.sites = {sites};"
                " lower it"
            )
        if self.privacy.unit != "none":
            _check_privacy(self)
        if self.privacy.covers_records:
            _check_record_privacy(self)
        if self.privacy.covers_sites:
            _check_site_privacy(self)
        check_learning(self)
        _check_secure_aggregation(self)
        if self.federation.strategy in ("SCAFFOLD", "FedNova"):
            verify_corrected(self)
        verify_personalisation(self)
        verify_continual(self)
        verify_compression(self)
        verify_groups(self)
        verify_statistics(self)
        return self


def _check_privacy(config: Config) -> None:
    """Refuse what would release something of a shard beside the update, whatever the unit."""
    under = f"under privacy.unit = '{config.privacy.unit}'"
    if config.federation.weighting == "examples":
        raise ValueError(
            f"federation.weighting = 'examples' would release each site's record count {under};"
            " set weighting = 'equal'"
        )
    if config.data.preparation == "standardise":
        raise ValueError(
            f"data.preparation = 'standardise' would release means and variances unprotected"
            f" {under}; set 'bounds' with data.bounds, or 'none'"
        )
    if config.federation.select == "best":
        raise ValueError(
            f"federation.select = 'best' would choose by unprotected validation metrics {under};"
            " set select = 'last'"
        )
    if config.federation.strategy == "QFedAvg":
        raise ValueError(
            f"federation.strategy = 'QFedAvg' weights sites by their unprotected losses {under};"
            f" choose {', '.join(AVERAGING_STRATEGIES)}"
        )


def _check_record_privacy(config: Config) -> None:
    unit = config.privacy.unit
    if config.training.sampling != "poisson":
        raise ValueError(
            f"training.sampling = 'shuffle' cannot be accounted under privacy.unit = '{unit}';"
            " set sampling = 'poisson' with sample_rate and expected_batch_size"
        )
    if config.data.source == "images" and config.data.image_size is None:
        raise ValueError(
            "data.image_size is missing: without it an image of another size than the others would"
            f" stop its site, which shows under privacy.unit = '{unit}'; set e.g. [64, 64]"
        )


def _check_site_privacy(config: Config) -> None:
    privacy, section = config.privacy, config.secure_aggregation
    if section.mode == "off":
        raise ValueError(
            f"privacy.unit = '{privacy.unit}' needs the noise of all sites in one sum; set"
            " secure_aggregation.mode = 'protocol'"
        )
    if config.federation.site_sample_rate is not None and section.threshold is not None:
        raise ValueError(
            f"secure_aggregation.threshold = {section.threshold} does not fit cohorts of"
            " federation.site_sample_rate, which vary; leave it out"
        )
    if config.federation.site_sample_rate is not None and privacy.neighbouring_relation != (
        "add_remove"
    ):
        raise ValueError(
            f"privacy.neighbouring_relation = '{privacy.neighbouring_relation}' is not known to"
            " amplify by federation.site_sample_rate; set 'add_remove' or draw sites otherwise"
        )


def _check_secure_aggregation(config: Config) -> None:
    section, federation = config.secure_aggregation, config.federation
    if section.mode == "off":
        return
    cure = "or set secure_aggregation.mode = 'off', and the coordinator sees every update"
    if federation.strategy not in AVERAGING_STRATEGIES:
        raise ValueError(
            f"federation.strategy = '{federation.strategy}' works on single updates, which secure"
            f" aggregation hides; choose {', '.join(AVERAGING_STRATEGIES)}, {cure}"
        )
    cohort = federation.sites_per_round or config.partition.sites
    if cohort is not None and cohort < section.min_cohort:
        raise ValueError(
            f"a cohort of {cohort} sites is below secure_aggregation.min_cohort ="
            f" {section.min_cohort}; take more sites, {cure}"
        )
    if section.threshold is not None and cohort is not None:
        low, high = 2 * cohort // 3 + 1, cohort
        if not low <= section.threshold <= high:
            raise ValueError(
                f"secure_aggregation.threshold = {section.threshold} is not between {low} (more"
                f" than two thirds of the cohort) and {high}; change it or leave it out"
            )

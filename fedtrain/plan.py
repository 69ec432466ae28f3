"""The run plan: public constants that follow from the config alone.

Sample rate, steps, divisor, clip, noise and delta of a run are fixed before any data is opened
and are the same at every site; nothing here may depend on a shard (PRIVACY.md, fact 1: a library
that derives them from the number of records breaks its own claim).
"""

import math
from dataclasses import dataclass, replace
from typing import Final, Literal

from fedtrain.config import Config
from fedtrain.errors import ConfigError
from fedtrain.ledger.site_ledger import Released
from fedtrain.privacy.accounting import PrivacyCost, compute_cost
from fedtrain.privacy.events import DistributedDiscreteGaussian, PoissonSampledGaussian
from fedtrain.privacy.ledger import LedgerEntry
from fedtrain.privacy.noise_shares import compute_share_variance
from fedtrain.privacy.renyi import NeighbouringRelation
from fedtrain.privacy.site_noise import (
    NOMINAL_SENSITIVITY,
    NoiseShare,
    SitePlan,
)
from fedtrain.secagg.policy import compute_default_threshold
from fedtrain.seeds import derive_seed

# Share of delta that is kept for rounds without a sum, where sites are sampled.
VOID_SHARE: Final = 0.01


@dataclass(frozen=True)
class RecordPlan:
    """What one round of DP-SGD is, the same at every site.

    Attributes:
        unit: What a step samples and clips: one record, or one person with all of theirs.
        noise_multiplier: Noise standard deviation / `max_grad_norm`.
        sample_rate: Poisson probability of one unit in a step.
        steps: Steps a round.
        max_grad_norm: L2 clip of one unit's gradient.
        expected_batch_size: Public divisor of the noisy sum.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int
    max_grad_norm: float
    expected_batch_size: float
    unit: Literal["record", "person"] = "record"

    def to_event(self, rounds: int) -> PoissonSampledGaussian:
        """Return what a site released after taking part in `rounds` rounds."""
        return PoissonSampledGaussian(
            noise_multiplier=self.noise_multiplier,
            sample_rate=self.sample_rate,
            steps=self.steps * rounds,
        )


def make_entry(
    plan: RecordPlan | None,
    *,
    site: str,
    round: int,
    update_digest: str | None,
    share: NoiseShare | None = None,
    released: Released | None = None,
) -> LedgerEntry:
    """Return the ledger entry of a round at a site; see `LedgerEntry`."""
    head, index = (None, None) if released is None else (released.head, released.index)
    if plan is None:
        return LedgerEntry(
            site=site,
            round=round,
            mechanism="none",
            update_digest=update_digest,
            noise_share=share,
            site_head=head,
            site_index=index,
        )
    return LedgerEntry(
        site=site,
        round=round,
        mechanism="poisson_sampled_gaussian",
        noise_multiplier=plan.noise_multiplier,
        sample_rate=plan.sample_rate,
        steps=plan.steps,
        max_grad_norm=plan.max_grad_norm,
        expected_batch_size=plan.expected_batch_size,
        update_digest=update_digest,
        noise_share=share,
        site_head=head,
        site_index=index,
    )


def sends_metrics(config: Config) -> bool:
    """Say whether sites send losses and metrics of their records, which no guarantee covers."""
    return config.privacy.metrics != "suppressed"


def get_threshold(config: Config, cohort: int) -> int:
    """Return how many survivors a secure sum over a cohort needs."""
    return config.secure_aggregation.threshold or compute_default_threshold(cohort)


def build_record_plan(config: Config) -> RecordPlan | None:
    """Return the plan of DP-SGD of a resolved config, or None where it has no such privacy."""
    if not config.privacy.covers_records:
        return None
    training, privacy = config.training, config.privacy
    required = (
        privacy.noise_multiplier,
        training.sample_rate,
        training.local_steps,
        training.expected_batch_size,
    )
    noise_multiplier, sample_rate, steps, expected_batch_size = required
    if noise_multiplier is None or sample_rate is None or steps is None:
        raise ConfigError("the config is not resolved; run it through `fedtrain config` first")
    if expected_batch_size is None:
        raise ConfigError("training.expected_batch_size is missing; privacy.unit needs it")
    return RecordPlan(
        noise_multiplier=noise_multiplier,
        sample_rate=sample_rate,
        steps=steps,
        max_grad_norm=privacy.max_grad_norm,
        expected_batch_size=expected_batch_size,
        unit="person" if privacy.covers_persons else "record",
    )


def build_site_plan(config: Config) -> SitePlan | None:
    """Return the site-level plan of a resolved config, or None where it has no such privacy.

    Raises:
        ConfigError: The config is not resolved, or the number of sites is not public.
    """
    if not config.privacy.covers_sites:
        return None
    section, federation = config.privacy.site, config.federation
    if section.noise_multiplier is None or section.max_update_norm is None:
        raise ConfigError("the config is not resolved; run it through `fedtrain config` first")
    divisor = _compute_expected_cohort(config)
    adaptive = section.clipping == "adaptive"
    first = section.initial_update_norm or section.max_update_norm / (10 if adaptive else 1)
    # Andrew et al. 2021 take a twentieth of the cohort; never so little that the bits would need
    # more than a few hundredths of the noise.
    bits = max(divisor / 20, 2 * section.noise_multiplier) if adaptive else None
    return SitePlan(
        noise_multiplier=section.noise_multiplier,
        max_update_norm=section.max_update_norm,
        first_update_norm=first,
        site_sample_rate=federation.site_sample_rate or 1.0,
        divisor=divisor,
        corrupt_share=config.secure_aggregation.corrupt_share,
        sites=count_sites(config),
        min_cohort=config.secure_aggregation.min_cohort,
        bit_noise_multiplier=bits,
        target_quantile=section.target_quantile,
        clip_learning_rate=section.clip_learning_rate,
    )


def compute_planned_cost(config: Config, rounds: int | None = None) -> PrivacyCost | None:
    """Return what a record or person pays at a site that takes part in `rounds` rounds, or None.

    Args:
        config: The resolved config.
        rounds: By default all.
    """
    plan = build_record_plan(config)
    if plan is None:
        return None
    return compute_cost(
        [plan.to_event(config.federation.rounds if rounds is None else rounds)],
        delta=config.privacy.target_delta,
        neighbouring_relation=config.privacy.neighbouring_relation,
        unit=plan.unit,
    )


def compute_planned_site_cost(
    config: Config, rounds: int | None = None, *, outside: bool = True
) -> PrivacyCost | None:
    """Return what a site pays in a run of `rounds` rounds, or None without site-level privacy.

    Args:
        config: The resolved config.
        rounds: By default all.
        outside: For whoever sees the models and not who took part: Poisson sampling of sites
            counts. False for the coordinator and for sites of the same cohorts, who see them:
            `rounds` are then those that the site took part in.
    """
    plan = build_site_plan(config)
    if plan is None:
        return None
    cost = compute_cost(
        [plan.to_event(config.federation.rounds if rounds is None else rounds, outside=outside)],
        delta=get_accounted_delta(config),
        neighbouring_relation=config.privacy.neighbouring_relation,
        unit="site",
    )
    return replace(cost, delta=config.privacy.site.target_delta)


def build_statistics_event(config: Config) -> DistributedDiscreteGaussian | None:
    """Return what the one sum of a run that asks for statistics releases of a record.

    None where it is exact. The event has the noise multiplier that every layout of the vector
    reaches (`fedtrain.statistics.vector`), so that it is known before data is opened.

    Raises:
        ConfigError: The config is not resolved.
    """
    section = config.statistics
    if section is None or (section.target_epsilon is None and section.noise_multiplier is None):
        return None
    if section.noise_multiplier is None:
        raise ConfigError("the config is not resolved; run it through `fedtrain config` first")
    variance = compute_share_variance(
        section.noise_multiplier, sensitivity=NOMINAL_SENSITIVITY, shares=1
    )
    return DistributedDiscreteGaussian(
        sensitivity=NOMINAL_SENSITIVITY,
        share_variance=variance,
        shares=1,
        dimension=1,
        sample_rate=1.0,
        steps=1,
    )


def compute_statistics_cost(
    config: Config, relation: NeighbouringRelation | None = None
) -> PrivacyCost | None:
    """Return what a run that asks for statistics costs a record, or None where it is exact.

    Args:
        config: The resolved config.
        relation: What neighbours are; by default as the config has it.
    """
    event, section = build_statistics_event(config), config.statistics
    if event is None or section is None:
        return None
    return compute_cost(
        [event],
        delta=section.target_delta,
        neighbouring_relation=relation or config.privacy.neighbouring_relation,
        unit="record",
    )


def compute_spent(config: Config, *, joined: int, done: int) -> PrivacyCost | None:
    """Return what one site has spent in the config's first unit, or None without privacy.

    Args:
        config: The resolved config.
        joined: Rounds that the site took part in.
        done: Rounds of the run so far. Where sites are sampled, and the first unit is a site,
            each round counts for each site.
    """
    if config.privacy.covers_records:
        return compute_planned_cost(config, joined)
    sampled = config.federation.site_sample_rate is not None
    return compute_planned_site_cost(config, done if sampled else joined)


def compute_draws_seed(config: Config) -> int:
    """Return the seed of a simulation's noise and samples.

    Folds, runs without a site, and trials are accounted as if each drew by itself. They have one
    `run.seed`, so that they deal the records alike; noise that followed from it alone would be the
    same in all of them, and the difference of two models would have none.
    """
    data, run, left_out = config.data, config.run, config.partition.leave_out
    if config.privacy.unit == "none" or (data.fold, left_out, run.trial) == (None, None, None):
        return run.seed
    return derive_seed(run.seed, "draws", repr((data.fold, left_out, run.trial)))


def find_accountants(config: Config) -> tuple[str | None, str | None]:
    """Return what computes the epsilon of the config's first unit, and of a second, a site."""
    rounds = config.federation.rounds
    first = compute_spent(config, joined=rounds, done=rounds)
    both = config.privacy.covers_records and config.privacy.covers_sites
    second = compute_planned_site_cost(config) if both else None
    return (
        None if first is None else first.accountant,
        None if second is None else second.accountant,
    )


def compute_mean_noise(config: Config, plan: SitePlan) -> float:
    """Return the noise's standard deviation on a coordinate of a round's mean update / the clip.

    Of a full cohort whose sites all survive; sampled sums are topped up to the same.
    """
    if plan.samples:
        spread = plan.compute_spread()
    else:
        cohort = round(plan.divisor)
        spread = cohort / plan.count_shares(cohort, get_threshold(config, cohort))
    return plan.noise_multiplier * math.sqrt(spread) / plan.divisor


def count_sites(config: Config) -> int:
    """Return the public number of sites.

    Raises:
        ConfigError: The config does not say it.
    """
    if config.partition.sites is None:
        raise ConfigError(
            f"partition.sites is missing; privacy.unit = '{config.privacy.unit}' divides by the"
            " expected cohort, which must be public"
        )
    return config.partition.sites


def _compute_expected_cohort(config: Config) -> float:
    """Return the public divisor of a round's sum."""
    sites, federation = count_sites(config), config.federation
    if federation.site_sample_rate is not None:
        return sites * federation.site_sample_rate
    return float(federation.sites_per_round or sites)


def get_accounted_delta(config: Config) -> float:
    """Return the delta of the sums: with Poisson cohorts a little is kept for void rounds."""
    sampled = config.federation.site_sample_rate is not None
    return config.privacy.site.target_delta * (1 - VOID_SHARE if sampled else 1.0)

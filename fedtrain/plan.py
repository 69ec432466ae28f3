"""The run plan: public constants that follow from the config alone.

Sample rate, steps, divisor, clip, noise and delta of a run are fixed before any data is opened
and are the same at every site; nothing here may depend on a shard (PRIVACY.md, fact 1: a library
that derives them from the number of records breaks its own claim).
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from fedtrain.config import Config, PrivacySection, SitePrivacySection
from fedtrain.errors import ConfigError
from fedtrain.ledger.site_ledger import Released
from fedtrain.privacy.accounting import PrivacyCost, compute_cost
from fedtrain.privacy.calibration import calibrate_noise_multiplier, calibrate_site_noise
from fedtrain.privacy.events import PoissonSampledGaussian
from fedtrain.privacy.ledger import LedgerEntry
from fedtrain.privacy.noise_shares import compute_small_cohort_delta
from fedtrain.privacy.site_noise import (
    NOMINAL_SENSITIVITY,
    NoiseShare,
    SitePlan,
    compute_spread,
)
from fedtrain.secagg.policy import compute_default_threshold

# Sources whose value range is public: pixels. Others are standardised unless bounds are given.
_PUBLIC_RANGE = ("sklearn:digits", "idx", "images")
# Share of delta that is kept for rounds without a sum, where sites are sampled.
_VOID_SHARE: Final = 0.01
# The norm of an update is to have so much room above what its noise alone makes it.
_BOUND_ROOM: Final = 1.25


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


def resolve(config: Config) -> Config:
    """Fill in everything that follows from the rest; a resolved config resolves to itself.

    Args:
        config: A checked config.

    Returns:
        A config in which local steps or epochs, weighting, selection, preparation and, under
        record-level privacy, the noise multiplier are set. Where `target_epsilon` is given, the
        noise is the smallest for all rounds and all local steps.

    Raises:
        ConfigError: `target_epsilon` cannot be reached.
    """
    private = config.privacy.unit != "none"
    federation = config.federation.model_copy(
        update={
            "weighting": config.federation.weighting or ("equal" if private else "examples"),
            "select": config.federation.select
            or ("last" if private or config.data.validation_fraction == 0 else "best"),
        }
    )
    central_test = config.data.central_test
    data = config.data.model_copy(
        update={
            "preparation": _resolve_preparation(config),
            "central_test": config.data.source == "idx" if central_test is None else central_test,
        }
    )
    training = _resolve_training(config)
    resolved = config.model_copy(
        update={"training": training, "federation": federation, "data": data}
    )
    return resolved.model_copy(update={"privacy": _resolve_privacy(resolved)})


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
        sites=_count_sites(config),
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
        delta=_get_accounted_delta(config),
        neighbouring_relation=config.privacy.neighbouring_relation,
        unit="site",
    )
    return replace(cost, delta=config.privacy.site.target_delta)


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


def verify_update_bound(config: Config, *, size: int) -> None:
    """Refuse a bound on updates that the noise of DP-SGD alone would often exceed.

    Each site would then refuse to send its update, and every round be void.

    Args:
        config: The resolved config.
        size: d, the number of parameters.

    Raises:
        ConfigError: See above; names a bound that does.
    """
    plan, section = build_record_plan(config), config.secure_aggregation
    if plan is None or section.mode == "off" or config.privacy.covers_sites:
        return
    typical = _compute_noise_norm(config, plan, size)
    if typical * _BOUND_ROOM > section.max_update_norm:
        raise ConfigError(
            f"secure_aggregation.max_update_norm = {section.max_update_norm:g}, but the noise of a"
            f" round alone moves {size:,} parameters by about {typical:.3g}; set it to"
            f" {2 * _BOUND_ROOM * typical:.2g}, or lower training.learning_rate"
        )


def _compute_noise_norm(config: Config, plan: RecordPlan, size: int) -> float:
    """Return the L2 norm of what a round's noise does to a model, about."""
    training = config.training
    if training.optimiser != "sgd":  # a step moves each parameter by the learning rate at most
        return training.learning_rate * plan.steps * math.sqrt(size)
    stddev = plan.noise_multiplier * plan.max_grad_norm / plan.expected_batch_size
    rate = training.learning_rate / (1 - training.momentum)
    return rate * stddev * math.sqrt(size * plan.steps)


def _resolve_training(config: Config) -> object:
    training = config.training
    if training.sampling == "poisson" and training.local_steps is None:
        if training.sample_rate is None:
            raise ConfigError("training.sample_rate is missing; sampling = 'poisson' needs it")
        steps = max(1, round((training.local_epochs or 1) / training.sample_rate))
        return training.model_copy(update={"local_steps": steps, "local_epochs": None})
    if training.local_steps is None and training.local_epochs is None:
        return training.model_copy(update={"local_epochs": 1})
    return training


def _resolve_preparation(config: Config) -> Literal["standardise", "bounds", "none"]:
    if config.data.preparation is not None:
        return config.data.preparation
    if config.data.source == "text":
        return "none"
    public = config.data.bounds or config.data.source in _PUBLIC_RANGE
    return "bounds" if public or config.privacy.unit != "none" else "standardise"


def _resolve_privacy(config: Config) -> PrivacySection:
    """Return the section with its noise, calibrated where a target is given, else checked."""
    privacy = config.privacy
    if privacy.unit == "none":
        return privacy
    changes: dict[str, Any] = {"metrics": privacy.metrics or "suppressed"}
    if privacy.covers_records and privacy.noise_multiplier is None:
        changes["noise_multiplier"] = _calibrate(config)
    if privacy.covers_sites and privacy.site.noise_multiplier is None:
        noise = {"noise_multiplier": _calibrate_site(config)}
        changes["site"] = privacy.site.model_copy(update=noise)
    resolved = privacy.model_copy(update=changes)
    whole = config.model_copy(update={"privacy": resolved})
    _check_target(privacy, resolved, compute_planned_cost(whole), prefix="")
    site_cost = compute_planned_site_cost(whole)
    _check_target(privacy.site, resolved.site, site_cost, prefix="site.")
    _check_small_cohorts(whole, site_cost)
    return resolved


def _check_target(
    given: PrivacySection | SitePrivacySection,
    resolved: PrivacySection | SitePrivacySection,
    cost: PrivacyCost | None,
    *,
    prefix: str,
) -> None:
    """Refuse a noise multiplier that costs more than the target that stands beside it."""
    target = resolved.target_epsilon
    if given.noise_multiplier is None or target is None or cost is None:
        return
    if cost.epsilon > target * (1 + 1e-9):
        raise ConfigError(
            f"privacy.{prefix}noise_multiplier = {given.noise_multiplier:g} costs epsilon"
            f" {cost.epsilon:.4g}, above privacy.{prefix}target_epsilon = {target:g};"
            " remove one of the two or raise the noise"
        )


def _calibrate(config: Config) -> float:
    training, privacy = config.training, config.privacy
    if training.sample_rate is None or training.local_steps is None:
        raise ConfigError("training.sample_rate is missing; privacy.unit needs it")
    if privacy.target_epsilon is None:
        raise ConfigError("privacy.target_epsilon is missing; give it or noise_multiplier")
    return calibrate_noise_multiplier(
        target_epsilon=privacy.target_epsilon,
        target_delta=privacy.target_delta,
        sample_rate=training.sample_rate,
        steps=config.federation.rounds * training.local_steps,
        neighbouring_relation=privacy.neighbouring_relation,
    )


def _calibrate_site(config: Config) -> float:
    """Return the noise for the target: with sampling for those outside, by the topped-up noise."""
    section, federation = config.privacy.site, config.federation
    if section.target_epsilon is None:
        raise ConfigError("privacy.site.target_epsilon is missing; give it or noise_multiplier")
    rate = federation.site_sample_rate or 1.0
    noise_multiplier = calibrate_site_noise(
        target_epsilon=section.target_epsilon,
        target_delta=_get_accounted_delta(config),
        site_sample_rate=rate,
        rounds=federation.rounds,
        shares=1,
        dimension=1,
        sensitivity=NOMINAL_SENSITIVITY,
        neighbouring_relation=config.privacy.neighbouring_relation,
    )
    if rate == 1:
        return noise_multiplier
    secure = config.secure_aggregation
    spread = compute_spread(_count_sites(config), secure.min_cohort, secure.corrupt_share)
    return math.ceil(noise_multiplier / math.sqrt(spread) * 1e6) / 1e6


def _count_sites(config: Config) -> int:
    if config.partition.sites is None:
        raise ConfigError(
            f"partition.sites is missing; privacy.unit = '{config.privacy.unit}' divides by the"
            " expected cohort, which must be public"
        )
    return config.partition.sites


def _compute_expected_cohort(config: Config) -> float:
    """Return the public divisor of a round's sum."""
    sites, federation = _count_sites(config), config.federation
    if federation.site_sample_rate is not None:
        return sites * federation.site_sample_rate
    return float(federation.sites_per_round or sites)


def _get_accounted_delta(config: Config) -> float:
    """Return the delta of the sums: with Poisson cohorts a little is kept for void rounds."""
    sampled = config.federation.site_sample_rate is not None
    return config.privacy.site.target_delta * (1 - _VOID_SHARE if sampled else 1.0)


def _check_small_cohorts(config: Config, cost: PrivacyCost | None) -> None:
    """Refuse Poisson cohorts that are too small for a secure sum too often.

    Such a round releases nothing, which the analysis of sampling does not cover; its probability
    must fit what is kept of delta.
    """
    rate, section = config.federation.site_sample_rate, config.secure_aggregation
    if cost is None or rate is None or not math.isfinite(cost.epsilon):
        return
    sites, kept = _count_sites(config), _VOID_SHARE * config.privacy.site.target_delta
    void = compute_small_cohort_delta(
        sites=sites,
        site_sample_rate=rate,
        minimum=section.min_cohort,
        rounds=config.federation.rounds,
        epsilon=cost.epsilon,
    )
    if void > kept:
        raise ConfigError(
            f"federation.site_sample_rate = {rate:g} of {sites} sites gives cohorts below"
            f" secure_aggregation.min_cohort = {section.min_cohort} so often that they take"
            f" {void:.3g} of delta, above {kept:.3g}; raise the rate or take more"
            " sites"
        )

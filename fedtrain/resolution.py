"""From a config as written to one in which everything is set that follows from the rest.

Steps, weights, preparation and noise become public constants here, before any data is opened.
"""

import math
from typing import Any, Final, Literal

from fedtrain.config import Config, PrivacySection, SitePrivacySection, StatisticsSection
from fedtrain.config.training import RMSPROP_ALPHA
from fedtrain.errors import ConfigError
from fedtrain.models.start_file import resolve_start
from fedtrain.plan import (
    VOID_SHARE,
    RecordPlan,
    build_record_plan,
    compute_planned_cost,
    compute_planned_site_cost,
    compute_statistics_cost,
    count_sites,
    get_accounted_delta,
)
from fedtrain.privacy.accounting import PrivacyCost
from fedtrain.privacy.calibration import calibrate_noise_multiplier, calibrate_site_noise
from fedtrain.privacy.noise_shares import compute_small_cohort_delta
from fedtrain.privacy.site_noise import NOMINAL_SENSITIVITY, compute_spread

# Sources whose value range is public: pixels. Others are standardised unless bounds are given.
_PUBLIC_RANGE: Final = ("sklearn:digits", "generated:graphs", "idx", "images")
_IDS: Final = ("text", "generated:ratings", "generated:many_ratings")
# The norm of an update is to have so much room above what its noise alone makes it.
_BOUND_ROOM: Final = 1.25


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
    compression = config.compression
    few_bits = compression is not None and compression.update_bits is not None
    smaller = compression is not None and (
        compression.prune_share is not None or compression.quantise_training is not None
    )
    equal = private or config.federation.strategy == "SCAFFOLD" or few_bits
    federation = config.federation.model_copy(
        update={
            "weighting": config.federation.weighting or ("equal" if equal else "examples"),
            "select": config.federation.select
            or ("last" if private or smaller or not config.data.validation_fraction else "best"),
        }
    )
    central_test = config.data.central_test
    own = config.personalisation
    # With local layers the coordinator has no whole model to test.
    has_central = config.data.source == "idx" and (own is None or not own.local_layers)
    data = config.data.model_copy(
        update={
            "preparation": _resolve_preparation(config),
            "central_test": has_central if central_test is None else central_test,
        }
    )
    training = _resolve_training(config)
    resolved = config.model_copy(
        update={
            "training": training,
            "federation": federation,
            "data": data,
            "model": resolve_start(config.model),
        }
    )
    resolved = resolved.model_copy(update={"privacy": _resolve_privacy(resolved)})
    if resolved.statistics is None:
        return resolved
    return resolved.model_copy(update={"statistics": _resolve_statistics(resolved)})


def _resolve_statistics(config: Config) -> StatisticsSection | None:
    """Return the section with its noise, calibrated where a target is given, else checked."""
    section = config.statistics
    if section is None or section.target_epsilon is None:
        return section
    if section.noise_multiplier is None:
        noise_multiplier = calibrate_site_noise(
            target_epsilon=section.target_epsilon,
            target_delta=section.target_delta,
            site_sample_rate=1.0,
            rounds=1,
            shares=1,
            dimension=1,
            sensitivity=NOMINAL_SENSITIVITY,
            neighbouring_relation=config.privacy.neighbouring_relation,
        )
        return section.model_copy(update={"noise_multiplier": noise_multiplier})
    cost = compute_statistics_cost(config)
    if cost is not None and cost.epsilon > section.target_epsilon * (1 + 1e-9):
        raise ConfigError(
            f"statistics.noise_multiplier = {section.noise_multiplier:g} costs epsilon"
            f" {cost.epsilon:.4g}, above statistics.target_epsilon = {section.target_epsilon:g};"
            " remove one of the two or raise the noise"
        )
    return section


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
    if config.data.source in _IDS:
        return "none"
    public = config.data.bounds or config.data.source in _PUBLIC_RANGE
    public = public or config.data.task == "forecasting"  # its target's bounds are its range
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
        target_delta=get_accounted_delta(config),
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
    spread = compute_spread(count_sites(config), secure.min_cohort, secure.corrupt_share)
    return math.ceil(noise_multiplier / math.sqrt(spread) * 1e6) / 1e6


def _check_small_cohorts(config: Config, cost: PrivacyCost | None) -> None:
    """Refuse Poisson cohorts that are too small for a secure sum too often.

    Such a round releases nothing, which the analysis of sampling does not cover; its probability
    must fit what is kept of delta.
    """
    rate, section = config.federation.site_sample_rate, config.secure_aggregation
    if cost is None or rate is None or not math.isfinite(cost.epsilon):
        return
    sites, kept = count_sites(config), VOID_SHARE * config.privacy.site.target_delta
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


def _compute_noise_norm(config: Config, plan: RecordPlan, size: int) -> float:
    """Return the L2 norm of what a round's noise does to a model, about."""
    training = config.training
    if training.optimiser == "rmsprop":  # its average of squares starts at 0: early steps are long
        alpha = RMSPROP_ALPHA if training.rmsprop_alpha is None else training.rmsprop_alpha
        longest = sum(1 / math.sqrt(1 - alpha**step) for step in range(1, plan.steps + 1))
        return training.learning_rate / (1 - training.momentum) * longest * math.sqrt(size)
    if training.optimiser != "sgd":  # a step moves each parameter by the learning rate at most
        return training.learning_rate * plan.steps * math.sqrt(size)
    stddev = plan.noise_multiplier * plan.max_grad_norm / plan.expected_batch_size
    rate = training.learning_rate / (1 - training.momentum)
    return rate * stddev * math.sqrt(size * plan.steps)

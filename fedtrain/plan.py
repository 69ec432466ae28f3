"""The run plan: public constants that follow from the config alone.

Sample rate, steps, divisor, clip, noise and delta of a run are fixed before any data is opened
and are the same at every site; nothing here may depend on a shard (PRIVACY.md, fact 1: a library
that derives them from the number of records breaks its own claim).
"""

from dataclasses import dataclass
from typing import Literal

from fedtrain.config import Config
from fedtrain.errors import ConfigError
from fedtrain.privacy.accounting import PrivacyCost, compute_cost
from fedtrain.privacy.calibration import calibrate_noise_multiplier
from fedtrain.privacy.events import PoissonSampledGaussian
from fedtrain.privacy.ledger import LedgerEntry

# Sources whose value range is public: pixels. Others are standardised unless bounds are given.
_PUBLIC_RANGE = ("sklearn:digits", "idx", "images")


@dataclass(frozen=True)
class RecordPlan:
    """What one round of record-level DP-SGD is, the same at every site.

    Attributes:
        noise_multiplier: Noise standard deviation / `max_grad_norm`.
        sample_rate: Poisson probability of a record in a step.
        steps: Steps a round.
        max_grad_norm: L2 clip of a record's gradient.
        expected_batch_size: Public divisor of the noisy sum.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int
    max_grad_norm: float
    expected_batch_size: float

    def to_event(self, rounds: int) -> PoissonSampledGaussian:
        """Return what a site released after taking part in `rounds` rounds."""
        return PoissonSampledGaussian(
            noise_multiplier=self.noise_multiplier,
            sample_rate=self.sample_rate,
            steps=self.steps * rounds,
        )


def make_entry(
    plan: RecordPlan | None, *, site: str, round: int, update_digest: str | None
) -> LedgerEntry:
    """Return the ledger entry of a round at a site; see `LedgerEntry`."""
    if plan is None:
        return LedgerEntry(site=site, round=round, mechanism="none", update_digest=update_digest)
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
    private = config.privacy.unit == "record"
    training = _resolve_training(config)
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
    resolved = config.model_copy(
        update={"training": training, "federation": federation, "data": data}
    )
    if not private:
        return resolved
    if config.privacy.noise_multiplier is None:
        return resolved.model_copy(update={"privacy": _calibrate(resolved)})
    _check_target(resolved)
    return resolved


def build_record_plan(config: Config) -> RecordPlan | None:
    """Return the record-level plan of a resolved config, or None without privacy."""
    if config.privacy.unit == "none":
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
    )


def compute_planned_cost(config: Config, rounds: int | None = None) -> PrivacyCost | None:
    """Return what a site pays that takes part in `rounds` rounds (default: all), or None."""
    plan = build_record_plan(config)
    if plan is None:
        return None
    return compute_cost(
        [plan.to_event(config.federation.rounds if rounds is None else rounds)],
        delta=config.privacy.target_delta,
        neighbouring_relation=config.privacy.neighbouring_relation,
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
    if config.data.source == "text":
        return "none"
    if config.data.bounds or config.data.source in _PUBLIC_RANGE or config.privacy.unit == "record":
        return "bounds"
    return "standardise"


def _check_target(config: Config) -> None:
    """Refuse a noise multiplier that costs more than the target that stands beside it."""
    target, cost = config.privacy.target_epsilon, compute_planned_cost(config)
    if target is not None and cost is not None and cost.epsilon > target * (1 + 1e-9):
        raise ConfigError(
            f"privacy.noise_multiplier = {config.privacy.noise_multiplier:g} costs epsilon"
            f" {cost.epsilon:.4g}, above privacy.target_epsilon = {target:g};"
            " remove one of the two or raise the noise"
        )


def _calibrate(config: Config) -> object:
    training, privacy = config.training, config.privacy
    if training.sample_rate is None or training.local_steps is None:
        raise ConfigError("training.sample_rate is missing; privacy.unit = 'record' needs it")
    if privacy.target_epsilon is None:
        raise ConfigError("privacy.target_epsilon is missing; give it or noise_multiplier")
    noise_multiplier = calibrate_noise_multiplier(
        target_epsilon=privacy.target_epsilon,
        target_delta=privacy.target_delta,
        sample_rate=training.sample_rate,
        steps=config.federation.rounds * training.local_steps,
        neighbouring_relation=privacy.neighbouring_relation,
    )
    return privacy.model_copy(update={"noise_multiplier": noise_multiplier})

"""A study of hyper-parameters: its file, its search space, what it costs in privacy."""

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from fedtrain.canonical import to_canonical
from fedtrain.config import (
    Config,
    Section,
    compute_digest,
    describe_problem,
    load_config,
)
from fedtrain.errors import ConfigError
from fedtrain.plan import build_record_plan, build_site_plan, get_accounted_delta, sends_metrics
from fedtrain.privacy.accounting import PrivacyCost, compute_cost
from fedtrain.privacy.events import Event
from fedtrain.resolution import resolve
from fedtrain.scenarios import find_scenario

MAX_TRIALS = 100_000
# What one epsilon of all trials is about: the same in each of them.
_SHARED = (
    "privacy.unit",
    "privacy.neighbouring_relation",
    "privacy.target_delta",
    "privacy.site.target_delta",
    "data.person_column",
)


class Span(Section):
    """Numbers from `low` to `high`; whole ones where both are and `log` or `step` say no other."""

    low: float | int
    high: float | int
    step: float | int | None = None
    log: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low = {self.low:g} is not below high = {self.high:g}; exchange them")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs low above 0 and no step; change one")
        if self.step is not None and not self.step > 0:
            raise ValueError(f"step = {self.step:g} is not above 0; raise it")
        return self

    @property
    def whole(self) -> bool:
        """Whether the numbers are whole."""
        return all(isinstance(n, int) for n in (self.low, self.high, self.step or 1))

    def list_values(self) -> list[float | int]:
        """Return the values of a grid; empty where there is no step."""
        if self.step is None:
            return list(range(int(self.low), int(self.high) + 1)) if self.whole else []
        count = int((self.high - self.low) / self.step * (1 + 1e-9)) + 1
        return [self.low + i * self.step for i in range(count)]


Choice = tuple[float | int | str | bool, ...]


class Study(Section):
    """The table `[sweep]` of a study file."""

    scenario: str = Field(description="A scenario, by file (from the study's folder) or name.")
    metric: str = Field("val_loss", description="What is best: val_loss, val_accuracy, val_auc...")
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    pruner: Literal["median", "none"] = "median"
    trials: int | None = Field(None, ge=1, le=MAX_TRIALS)
    workers: int = Field(1, ge=1, le=256)
    seed: int = Field(0, ge=0)
    public_data: bool = False
    space: dict[str, Choice | Span] = Field(min_length=1)
    fixed: dict[str, float | int | str | bool] = {}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.metric.startswith("val_"):
            raise ValueError(
                f"metric = '{self.metric}' is no validation metric: what is chosen by test records"
                " can no longer be tested on them; set e.g. 'val_loss'"
            )
        for name, values in self.space.items():
            if "." not in name or name in self.fixed:
                raise ValueError(
                    f"space.'{name}': write section.key, and only in one of space and fixed"
                )
            if name in _SHARED:
                raise ValueError(
                    f"space.'{name}' would make one epsilon of trials that protect different"
                    " things; set it in fixed or in the scenario"
                )
            if self.sampler == "grid" and isinstance(values, Span) and not values.list_values():
                raise ValueError(f"space.'{name}': a grid needs a step, or a list of values")
        if self.sampler != "grid" and self.trials is None:
            raise ValueError(f"trials is missing; sampler '{self.sampler}' needs it, e.g. 20")
        return self

    @property
    def maximises(self) -> bool:
        """Whether more of the metric is better."""
        return not any(word in self.metric for word in ("loss", "mae", "rmse", "ece", "perplex"))

    def build_grid(self) -> dict[str, list[Any]]:
        """Return the values of each key of a grid."""
        return {
            name: values.list_values() if isinstance(values, Span) else list(values)
            for name, values in self.space.items()
        }

    def count_trials(self) -> int:
        """Return how many trials there are."""
        if self.sampler != "grid":
            return self.trials or 0
        size = sum(1 for _ in product(*self.build_grid().values()))
        return min(size, self.trials or size)


def load_study(path: Path) -> tuple[Study, Path]:
    """Read a study file, or one that ships, by name; return it, and the scenario's file.

    Raises:
        ConfigError: A file is missing or does not satisfy the schema.
    """
    shipped = Path(__file__).parent / "sweeps" / f"{path.name}.toml"
    if not path.exists() and shipped.exists():
        path = shipped
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read; give a study file (TOML)") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    if set(tree) != {"sweep"} or not isinstance(tree["sweep"], dict):
        raise ConfigError(f"{path}: a study has one table, [sweep]; see fedtrain sweep --help")
    _verify_lists(path, tree["sweep"].get("space"))
    try:
        study = Study.model_validate_json(json.dumps(tree["sweep"], default=str))
    except ValidationError as error:
        raise ConfigError(f"{path}: sweep.{describe_problem(error, Study)}") from error
    beside = path.parent / study.scenario
    return study, beside if beside.is_file() else find_scenario(study.scenario)


def _verify_lists(path: Path, space: object) -> None:
    """Refuse a list to choose from that is empty or holds lists, which samplers cannot compare."""
    for name, values in space.items() if isinstance(space, dict) else ():
        if not isinstance(values, list):
            continue
        where = f"{path}: sweep.space.'{name}' = {json.dumps(values, default=str)}"
        if not values:
            raise ConfigError(f"{where} is empty; give two values or more")
        if any(isinstance(value, list | dict) for value in values):
            raise ConfigError(
                f"{where}: a value of a search is a number, a text or true and false, and no list;"
                " make a study for each such value"
            )


def build_trial_config(
    study: Study, scenario: Path, values: Mapping[str, Any], *, number: int | None = None
) -> Config:
    """Return the resolved config of one trial.

    Args:
        study: The study.
        scenario: Its scenario's file.
        values: What the trial changes.
        number: Of the trial, by which one with privacy draws noise of its own.

    Raises:
        ConfigError: The scenario does not allow these values.
    """
    config = resolve(load_config(scenario, list_overrides(study, values)))
    if number is None or config.privacy.unit == "none":
        return config
    return config.model_copy(update={"run": config.run.model_copy(update={"trial": number})})


def verify_space(study: Study, scenario: Path) -> None:
    """Refuse a search among values of a key that no scenario has, before the first trial.

    Whether the values are allowed together, each trial finds out.

    Raises:
        ConfigError: There is no such key.
    """
    for name, values in study.space.items():
        first = values.low if isinstance(values, Span) else values[0]
        try:
            load_config(scenario, list_overrides(study, {name: first}))
        except ConfigError as error:
            cause = error.__cause__
            unknown = isinstance(cause, ValidationError) and (
                cause.errors()[0]["type"] == "extra_forbidden"
            )
            if unknown:
                raise ConfigError(f"sweep.space: {error}") from error


def list_overrides(study: Study, values: Mapping[str, Any]) -> list[str]:
    """Return what a trial changes in the scenario, as `--set` takes it."""
    return [f"{key}={json.dumps(value)}" for key, value in {**study.fixed, **values}.items()]


def compute_study_digest(study: Study, scenario: Path) -> str:
    """Return what a folder's trials have in common; more trials or workers change nothing."""
    own = study.model_dump(mode="json", exclude={"trials", "workers"})
    base = compute_digest(load_config(scenario))
    return hashlib.sha256(to_canonical([own, base]).encode()).hexdigest()


def verify_objective(study: Study, config: Config) -> None:
    """Refuse a study whose metric no trial would have.

    Raises:
        ConfigError: Metrics are suppressed, or no records are held out.
    """
    if not sends_metrics(config):
        raise ConfigError(
            "privacy.metrics = 'suppressed': no trial would have a validation metric to choose by;"
            " set privacy.metrics = 'uncovered' (no guarantee covers them then), or sweep on"
            " public data"
        )
    if not config.data.validation_fraction:
        raise ConfigError(
            f"data.validation_fraction = 0 leaves no records for {study.metric}; raise it"
        )


def list_events(config: Config) -> list[Event]:
    """Return what one whole run releases of a record or person, or where none is, of a site."""
    record = build_record_plan(config)
    if record is None:
        return list_site_events(config)
    return [record.to_event(config.federation.rounds)]


def list_site_events(config: Config) -> list[Event]:
    """Return what one whole run releases of a site; none where no site is protected."""
    site = build_site_plan(config)
    return [] if site is None else [site.to_event(config.federation.rounds)]


def compute_joint_costs(
    config: Config, events: list[Event], site_events: list[Event], *, runs: int
) -> tuple[PrivacyCost, ...]:
    """Return what runs on the same records cost together, for each unit that is protected.

    Args:
        config: Of any of them.
        events: What all of them release of a record or person, or of a site: see `list_events`.
        site_events: What they release of a site.
        runs: How many keep a share of delta for rounds without a sum.
    """
    privacy, found = config.privacy, list[PrivacyCost]()
    relation = privacy.neighbouring_relation
    if privacy.covers_records and events:
        unit: Literal["record", "person"] = "person" if privacy.covers_persons else "record"
        delta = privacy.target_delta
        found.append(compute_cost(events, delta=delta, neighbouring_relation=relation, unit=unit))
    if privacy.covers_sites and site_events:
        delta = get_accounted_delta(config)
        cost = compute_cost(site_events, delta=delta, neighbouring_relation=relation, unit="site")
        void = privacy.site.target_delta - delta  # of one run
        found.append(replace(cost, delta=delta + runs * void))
    return tuple(found)

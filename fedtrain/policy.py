"""A site's policy: what it allows a run to do with its data, whatever the run's config says.

The file `policy.toml` is the site's own and never leaves it. Every key has a safe default, so that
an empty file is a policy. The coordinator is told the name of the rule that refused a run, never
its bound.
"""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, NoReturn

from pydantic import Field, ValidationError, model_validator

from fedtrain.config import Config, Section, describe_problem
from fedtrain.errors import ConfigError, SiteError
from fedtrain.ledger.budget import Budget, Unit
from fedtrain.privacy.accounting import PrivacyCost, compute_cost
from fedtrain.privacy.events import PoissonSampledGaussian
from fedtrain.privacy.renyi import NeighbouringRelation

_HEADER: Final = """\
# The policy of a site: what it allows a run to do with its data. It wins over any run's config.
# Every key is here; a commented one shows its default. An empty file is a policy, too.
"""


class PolicyError(SiteError):
    """The site's policy does not allow a run.

    Attributes:
        rule: The key of the policy that refuses it; stable, and all that the coordinator is told.
    """

    code = "policy"

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


class Policy(Section):
    """What a site allows."""

    allowed_units: tuple[Literal["record", "person", "site", "none"], ...] = Field(
        ("record", "person", "site"),
        description=(
            "What a run may protect; none, a run without differential privacy, only if named here."
            " A run that protects two counts by the finer one that is named."
        ),
    )
    min_noise_multiplier: float = Field(
        0.5, ge=0, description="Least noise_multiplier of a run, of that protection."
    )
    max_grad_norm: float = Field(
        10.0, gt=0, description="Largest clip of the gradient of one record or person."
    )
    max_update_norm: float = Field(
        100.0, gt=0, description="Largest clip, or bound, of this site's whole update."
    )
    max_epsilon: float = Field(
        8.0, gt=0, description="Most epsilon that a whole run may cost, all its rounds."
    )
    max_delta: float = Field(1e-5, gt=0, lt=1, description="Largest delta of a run's epsilon.")
    lifetime_epsilon: float = Field(
        8.0,
        gt=0,
        description="Epsilon of a new ledger: what all runs together may cost, for life.",
    )
    lifetime_delta: float = Field(1e-6, gt=0, lt=1, description="Its delta.")
    lifetime_unit: Unit = Field(
        "record", description="What the lifetime budget protects: one record, person, or the site."
    )
    neighbouring_relation: NeighbouringRelation = Field(
        "add_remove",
        description=(
            "What this site counts epsilon for: add_remove, one of the unit more or less;"
            " replace_one, one exchanged, which costs up to twice as much."
        ),
    )
    min_cohort: int = Field(3, ge=3, description="Fewest sites that a sum may be over.")
    secure_aggregation_required: bool = Field(
        True, description="Whether the coordinator may only see sums (mode protocol)."
    )
    uncovered_metrics: bool = Field(
        False, description="Whether metrics may leave that a run's guarantee does not cover."
    )
    models: tuple[str, ...] | None = Field(
        None, description="Models allowed, by model.name; default: all that ship."
    )
    columns: tuple[str, ...] | None = Field(
        None,
        description=(
            "Data columns that a run may use, the label's included; a run must then name its"
            " data.columns. Default: all."
        ),
    )
    person_column: str | None = Field(
        None,
        description=(
            "Column that says which person a row is about: a run that protects persons by another"
            " might protect single rows. Default: the run's."
        ),
    )
    max_rounds: int = Field(1000, ge=1, description="Most rounds of a run.")
    max_local_steps: int = Field(1000, ge=1, description="Most optimiser steps a round.")
    max_local_epochs: int = Field(100, ge=1, description="Most passes over the data a round.")
    partial_runs: bool = Field(
        True,
        description="Whether to take part in as many rounds as the budget can bear, if not all.",
    )
    statistics: bool = Field(
        False,
        description=(
            "Whether a run may ask for statistics and train nothing: sums of counts, moments and"
            " histograms over all sites, of text how often tokens follow one another."
        ),
    )
    max_statistics_epsilon: float = Field(
        1.0,
        gt=0,
        description="Most epsilon of one such run; the lifetime budget pays for all of them.",
    )
    exact_statistics: int = Field(
        0,
        ge=0,
        description=(
            "How many such runs without noise are answered, ever. Two of them can be subtracted,"
            " and what differs may be one record."
        ),
    )
    min_statistics_records: int = Field(
        10,
        ge=1,
        description=(
            "Fewest records here that an answer without noise rests on. With noise each record is"
            " protected among however few, and a refusal would tell their number."
        ),
    )
    own_code: bool = Field(
        False, description="Whether a config may name module:function for data or model."
    )

    @model_validator(mode="after")
    def _check(self) -> "Policy":
        if not self.allowed_units:
            raise ValueError("allowed_units = [] allows no run; name record, person or site")
        return self

    def to_budget(self) -> Budget:
        """Return the lifetime budget of a new ledger; one that exists keeps its own."""
        return Budget(
            epsilon=self.lifetime_epsilon,
            delta=self.lifetime_delta,
            unit=self.lifetime_unit,
            neighbouring_relation=self.neighbouring_relation,
        )


def load_policy(path: Path) -> Policy:
    """Read a policy.

    Raises:
        ConfigError: The file cannot be read or does not satisfy the schema.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read ({reason}); give a TOML file") from error
    return parse_policy(text, name=str(path))


def parse_policy(text: str, *, name: str = "policy") -> Policy:
    """Check a policy given as TOML text; see `load_policy`."""
    try:
        tree = tomllib.loads(text)
        return Policy.model_validate_json(json.dumps(tree, default=str))  # JSON: arrays are tuples
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: not valid TOML: {error}") from error
    except ValidationError as error:
        raise ConfigError(f"{name}: {describe_problem(error, Policy)}") from error


def describe_policy(policy: Policy | None = None) -> str:
    """Return a commented `policy.toml` with every key, its meaning and its default.

    Args:
        policy: Whose keys are active; by default none is.

    Returns:
        TOML text that `parse_policy` reads back to the policy.
    """
    from fedtrain.report.scenario import render_keys

    return "\n".join([_HEADER, *render_keys(policy or Policy())])


def check_config(policy: Policy, config: Config, *, site_cost: PrivacyCost | None = None) -> None:
    """Check a run against the policy, before data is opened.

    Args:
        policy: The site's.
        config: The resolved config of the run.
        site_cost: What the run costs by its site-level noise; needed where that is the protection
            that counts (`privacy.unit = "site"`).

    Raises:
        PolicyError: A rule refuses; its `rule` is the key, its text has value, bound and cure.
        ConfigError: The config is not resolved.

    Guarantees:
        * What is not known is refused, not allowed: no cost, no columns, a unit that is not named.
        * Nothing is read but the policy and the config.
    """
    if config.statistics is not None:
        _check_statistics(policy, config)
        return
    for check in _CHECKS:
        check(policy, config)
    protection = _find_protection(policy, config)
    if protection == "none":
        return
    if protection == "site":
        _check_site(policy, config, site_cost)
    else:
        _check_records(policy, config)
    if config.privacy.metrics == "uncovered" and not policy.uncovered_metrics:
        _refuse(
            "uncovered_metrics",
            "privacy.metrics = 'uncovered' sends metrics that the guarantee does not cover",
            "off",
        )


def _check_rounds(policy: Policy, config: Config) -> None:
    training = config.training
    for rule, key, value in (
        ("max_rounds", "federation.rounds", config.federation.rounds),
        ("max_local_steps", "training.local_steps", training.local_steps),
        ("max_local_epochs", "training.local_epochs", training.local_epochs),
    ):
        _check_most(policy, rule, key, value)


def _check_code(policy: Policy, config: Config) -> None:
    if policy.own_code:
        return
    source, model = config.data.source, config.model.name
    if ":" in source and not source.startswith(("sklearn:", "generated:")):
        _refuse("own_code", f"data.source = '{source}' names code of its own", "off")
    if ":" in model and model not in (policy.models or ()):
        _refuse("own_code", f"model.name = '{model}' names code of its own", "off")


def _check_model(policy: Policy, config: Config) -> None:
    name = config.model.name
    if policy.models is not None and name not in policy.models:
        _refuse("models", f"model.name = '{name}'", f"one of {', '.join(policy.models) or 'none'}")


def _check_columns(policy: Policy, config: Config) -> None:
    if policy.columns is None:
        return
    from fedtrain.data.labels import parse_expression

    data, asked = config.data, config.statistics
    columns = data.columns if asked is None else asked.columns or data.columns
    bound = f"within {', '.join(policy.columns) or 'none'}"
    if columns is None:
        _refuse("columns", "data.columns is not given, so that all columns would be used", bound)
    expression = None if data.label is None else parse_expression(data.label)
    label = data.label if expression is None else expression.column
    others = (label, data.site_column, data.person_column, data.group_column)
    for column in (*columns, *(data.targets or ()), *others):
        if column is not None and column not in policy.columns:
            _refuse("columns", f"column '{column}' is used", bound)


def _check_secure_aggregation(policy: Policy, config: Config) -> None:
    section, federation = config.secure_aggregation, config.federation
    if policy.secure_aggregation_required and section.mode != "protocol":
        _refuse(
            "secure_aggregation_required",
            f"secure_aggregation.mode = '{section.mode}' shows the coordinator single updates",
            "on",
        )
    cohort = federation.sites_per_round or config.partition.sites
    if cohort is not None and cohort < policy.min_cohort:
        _refuse("min_cohort", f"a cohort of {cohort} sites", f"at least {policy.min_cohort}")
    _check_most(
        policy, "max_update_norm", "secure_aggregation.max_update_norm", section.max_update_norm
    )


def _find_protection(policy: Policy, config: Config) -> str:
    """Return the finest unit of the run that the policy names."""
    units = config.privacy.unit.split("_and_")
    named = [unit for unit in units if unit in policy.allowed_units]
    if not named:
        _refuse(
            "allowed_units",
            f"privacy.unit = '{config.privacy.unit}'",
            f"one of {', '.join(policy.allowed_units)}",
        )
    return named[0]


def _check_records(policy: Policy, config: Config) -> None:
    privacy, training = config.privacy, config.training
    noise, rate, steps = privacy.noise_multiplier, training.sample_rate, training.local_steps
    if noise is None or rate is None or steps is None:
        raise ConfigError("the config is not resolved; run it through `fedtrain config` first")
    named = config.data.person_column
    if privacy.covers_persons and policy.person_column not in (None, named):
        _refuse(
            "person_column",
            f"data.person_column = '{named}' says who a person is",
            f"'{policy.person_column}'",
        )
    _check_noise(policy, "privacy.noise_multiplier", noise)
    _check_most(policy, "max_grad_norm", "privacy.max_grad_norm", privacy.max_grad_norm)
    _check_most(policy, "max_delta", "privacy.target_delta", privacy.target_delta)
    cost = compute_cost(
        [PoissonSampledGaussian(noise, rate, steps * config.federation.rounds)],
        delta=privacy.target_delta,
        neighbouring_relation=policy.neighbouring_relation,
    )
    _check_epsilon(policy, cost)


def _check_site(policy: Policy, config: Config, cost: PrivacyCost | None) -> None:
    section = config.privacy.site
    if section.noise_multiplier is None:
        raise ConfigError("the config is not resolved; run it through `fedtrain config` first")
    _check_noise(policy, "privacy.site.noise_multiplier", section.noise_multiplier)
    key = "privacy.site.max_update_norm"
    _check_most(policy, "max_update_norm", key, section.max_update_norm)
    _check_most(policy, "max_delta", "privacy.site.target_delta", section.target_delta)
    if cost is None:
        _refuse("max_epsilon", "the run's cost to a site is not known", f"{policy.max_epsilon:g}")
    if cost.delta > section.target_delta:
        _refuse("max_delta", f"the cost is for delta = {cost.delta:g}", f"{section.target_delta:g}")
    relation = policy.neighbouring_relation
    if relation == "replace_one" and cost.neighbouring_relation != relation:
        found = f"privacy.neighbouring_relation = '{cost.neighbouring_relation}'"
        _refuse("neighbouring_relation", found, relation)
    _check_epsilon(policy, cost)


def _check_statistics(policy: Policy, config: Config) -> None:
    """Check a run that asks for statistics; whatever its training would be, there is none."""
    from fedtrain.plan import compute_statistics_cost

    section = config.statistics
    if section is None:
        return
    if not policy.statistics:
        _refuse("statistics", "the run asks for statistics", "off")
    _check_code(policy, config)
    _check_columns(policy, config)
    if config.secure_aggregation.mode != "protocol":
        _refuse(
            "secure_aggregation_required",
            f"secure_aggregation.mode = '{config.secure_aggregation.mode}' shows the coordinator"
            " single answers",
            "on for statistics",
        )
    if config.partition.sites is not None and config.partition.sites < policy.min_cohort:
        found = f"a cohort of {config.partition.sites} sites"
        _refuse("min_cohort", found, f"at least {policy.min_cohort}")
    cost = compute_statistics_cost(config, policy.neighbouring_relation)
    if cost is None:
        if not policy.exact_statistics:
            _refuse("exact_statistics", "the run asks for sums without noise", "0")
        return
    if "record" not in policy.allowed_units:
        found = "the noise of statistics protects single records"
        _refuse("allowed_units", found, f"one of {', '.join(policy.allowed_units)}")
    _check_noise(policy, "statistics.noise_multiplier", section.noise_multiplier or 0.0)
    _check_most(policy, "max_delta", "statistics.target_delta", section.target_delta)
    _check_epsilon(policy, cost, rule="max_statistics_epsilon")


def _check_noise(policy: Policy, key: str, noise: float) -> None:
    if not noise >= policy.min_noise_multiplier:
        _refuse(
            "min_noise_multiplier",
            f"{key} = {noise:g}",
            f"at least {policy.min_noise_multiplier:g}",
        )


def _check_epsilon(policy: Policy, cost: PrivacyCost, *, rule: str = "max_epsilon") -> None:
    most = getattr(policy, rule)
    if not cost.epsilon <= most:
        _refuse(
            rule,
            f"the run costs epsilon = {cost.epsilon:.4g} at delta = {cost.delta:g}"
            f" ({cost.neighbouring_relation})",
            f"at most {most:g}",
        )


def _check_most(policy: Policy, rule: str, key: str, value: float | None) -> None:
    most = getattr(policy, rule)
    if value is not None and not value <= most:
        _refuse(rule, f"{key} = {value:g}", f"at most {most:g}")


def _refuse(rule: str, found: str, bound: str) -> NoReturn:
    raise PolicyError(
        rule,
        f"{found}; this site's policy.{rule} is {bound}; ask the coordinator to change the run",
    )


_CHECKS: Final[tuple[Callable[[Policy, Config], None], ...]] = (
    _check_rounds,
    _check_code,
    _check_model,
    _check_columns,
    _check_secure_aggregation,
)

"""The run configuration: one typed schema, read from TOML, with one digest.

Every value that shapes a run is a field here. A config is frozen; unknown keys are refused with
the nearest known name. `load_config` reads and checks a file, `resolve` (in `fedtrain.resolution`)
fills in what follows from the rest, and `compute_digest` names the result.
"""

import difflib
import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fedtrain.errors import ConfigError

STRATEGIES: Final = (
    "FedAvg",
    "FedProx",
    "FedAvgM",
    "FedAdam",
    "FedYogi",
    "FedAdagrad",
    "FedMedian",
    "FedTrimmedAvg",
    "Krum",
    "MultiKrum",
    "Bulyan",
    "QFedAvg",
)
# Strategies that need the weighted average of a round and no single update: their replies are
# folded into one as they arrive, and secure aggregation can stand below them.
AVERAGING_STRATEGIES: Final = ("FedAvg", "FedProx", "FedAvgM", "FedAdam", "FedYogi", "FedAdagrad")
# FedProx's coefficient where federation.strategy_options names none.
DEFAULT_PROXIMAL_MU: Final = 0.01
# Keys that say where and how a run is computed, not what it computes; they are not in the digest.
LOCAL_KEYS: Final = (("run", "directory"), ("data", "path"), ("simulation",))


class Section(BaseModel):
    """A frozen table of the config that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class RunSection(Section):
    """What the run is called, where it goes, and its seed."""

    name: str = Field(
        "run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="Name of the run."
    )
    seed: int = Field(
        0,
        ge=0,
        lt=2**63,
        description="Seed of every random draw of a simulation and of the start model.",
    )
    directory: str = Field("runs", description="Folder that run directories are made in.")


class DataSection(Section):
    """Where records come from and how a site prepares them."""

    source: str = Field(
        "sklearn:digits",
        description=(
            "sklearn:digits, sklearn:breast_cancer, csv, parquet, idx, npz, images, text, or"
            " module:function for your own."
        ),
    )
    path: str | None = Field(
        None,
        description="File or folder of the data; a relative path starts at the current folder.",
    )
    label: str | None = Field(
        None,
        description="Label column, or an expression over one: 'num > 0'. csv and parquet need it.",
    )
    site_column: str | None = Field(
        None, description="Column that names the site of each row, where one file holds all sites."
    )
    person_column: str | None = Field(
        None,
        description=(
            "Column that says which person a row is about; privacy.unit = 'person' needs it. npz"
            " has an array 'person' instead."
        ),
    )
    columns: tuple[str, ...] | None = Field(
        None,
        description="Feature columns, in order; default: all but label, site and person.",
    )
    categorical: tuple[str, ...] = Field(
        (), description="Numeric-looking columns to treat as categories."
    )
    missing: tuple[str, ...] = Field(
        ("", "?", "NA", "NaN", "nan", "null"),
        description="Texts that mean 'no value'.",
    )
    zero_is_missing: tuple[str, ...] = Field(
        (), description="Numeric columns in which 0 means 'no value'."
    )
    preparation: Literal["standardise", "bounds", "none"] | None = Field(
        None,
        description=(
            "standardise: federated mean and variance; bounds: by public bounds; none. Default:"
            " bounds where the source has a public range or data.bounds is given, else standardise."
        ),
    )
    bounds: dict[str, tuple[float, float]] = Field(
        {}, description="Public lower and upper bound of numeric columns."
    )
    categories: dict[str, tuple[str, ...]] = Field(
        {}, description="Public categories of categorical columns."
    )
    classes: tuple[str, ...] | None = Field(
        None, description="Public label names, in order; default: found federated."
    )
    sequence_length: int = Field(
        32, ge=1, le=4096, description="text: characters before the one to predict."
    )
    image_size: tuple[int, int] | None = Field(
        None, description="images: height and width to resize to."
    )
    central_test: bool | None = Field(
        None,
        description=(
            "Test at the coordinator on the source's own test set; default: where the source is"
            " idx."
        ),
    )
    validation_fraction: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Share of each site's records held out to choose the best model.",
    )
    test_fraction: float = Field(
        0.2, ge=0, lt=1, description="Share of each site's records held out to report on."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"validation_fraction + test_fraction ="
                f" {self.validation_fraction + self.test_fraction:g} leaves nothing to train on;"
                " their sum must be below 1"
            )
        for name, (low, high) in self.bounds.items():
            if not low < high:
                raise ValueError(
                    f"bounds.{name} = [{low:g}, {high:g}]: the lower bound must be below the upper"
                )
        return self


class PartitionSection(Section):
    """How a simulation deals records to sites."""

    scheme: Literal["iid", "dirichlet", "shards", "quantity", "natural"] = Field(
        "iid",
        description=(
            "iid; dirichlet (label skew); shards (McMahan 2017); quantity (size skew);"
            " natural (by file, column or speaker)."
        ),
    )
    sites: int | None = Field(
        None, ge=1, le=1_000_000, description="Number of sites; natural takes it from the data."
    )
    alpha: float = Field(
        0.5, gt=0, description="Dirichlet concentration of dirichlet and quantity; small is skewed."
    )
    shards_per_site: int = Field(2, ge=1, description="shards: label shards a site.")
    min_records: int = Field(
        1, ge=1, description="Fewest records a site may have; fewer is an error, not a surprise."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.scheme != "natural" and self.sites is None:
            raise ValueError(f"sites is missing; scheme '{self.scheme}' needs it, e.g. sites = 10")
        return self


class ModelSection(Section):
    """The architecture."""

    name: str = Field(
        "mlp",
        description=(
            "logistic, mlp, cnn, cnn_groupnorm, cnn_small, or module:function that returns an"
            " nn.Module."
        ),
    )
    hidden: tuple[int, ...] = Field((32,), description="mlp: units of hidden layers.")
    activation: Literal["relu", "tanh", "gelu", "silu"] | None = Field(
        None, description="Activation of hidden layers. Default: tanh for cnn_small, else relu."
    )
    options: dict[str, Any] = Field(
        {}, description="Keyword arguments for a module:function of your own."
    )


class TrainingSection(Section):
    """What a site does in a round."""

    optimiser: Literal["sgd", "adam", "adamw"] = Field("sgd", description="Local optimiser.")
    learning_rate: float = Field(0.1, gt=0, description="Local learning rate.")
    momentum: float = Field(0.0, ge=0, lt=1, description="Momentum of sgd.")
    weight_decay: float = Field(0.0, ge=0, description="Weight decay.")
    sampling: Literal["shuffle", "poisson"] = Field(
        "shuffle",
        description=(
            "shuffle: batches of a shuffled pass; poisson: each record joins each step with"
            " sample_rate (differential privacy needs it)."
        ),
    )
    local_epochs: int | None = Field(None, ge=1, description="Passes over the local data a round.")
    local_steps: int | None = Field(None, ge=1, description="Optimiser steps a round instead.")
    batch_size: int = Field(32, ge=1, description="shuffle: records a step.")
    sample_rate: float | None = Field(
        None, gt=0, le=1, description="poisson: probability of a record in a step; public."
    )
    expected_batch_size: float | None = Field(
        None,
        gt=0,
        description=(
            "poisson: what the sum of a batch's gradients is divided by; a public constant,"
            " never computed from a shard."
        ),
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.local_epochs is not None and self.local_steps is not None:
            raise ValueError(
                f"local_epochs = {self.local_epochs} and local_steps = {self.local_steps} exclude"
                " each other; keep one"
            )
        if self.sampling == "poisson":
            for key in ("sample_rate", "expected_batch_size"):
                if getattr(self, key) is None:
                    raise ValueError(f"{key} is missing; sampling = 'poisson' needs it")
        return self


class FederationSection(Section):
    """Rounds, cohorts and the strategy."""

    strategy: Literal[
        "FedAvg",
        "FedProx",
        "FedAvgM",
        "FedAdam",
        "FedYogi",
        "FedAdagrad",
        "FedMedian",
        "FedTrimmedAvg",
        "Krum",
        "MultiKrum",
        "Bulyan",
        "QFedAvg",
    ] = Field("FedAvg", description="Flower strategy that aggregates the updates.")
    strategy_options: dict[str, float | int] = Field(
        {}, description="The strategy's own parameters, by Flower's names: {server_momentum = 0.5}."
    )
    rounds: int = Field(10, ge=1, le=1_000_000, description="Rounds of the whole run.")
    sites_per_round: int | None = Field(
        None, ge=1, description="Sites drawn a round, uniformly; default: all."
    )
    site_sample_rate: float | None = Field(
        None, gt=0, le=1, description="Poisson probability of a site in a round instead."
    )
    min_survivors: int = Field(
        1,
        ge=1,
        description="Fewest usable updates; a round with fewer is void and changes nothing.",
    )
    weighting: Literal["examples", "equal"] | None = Field(
        None,
        description=(
            "Weight of a site in the average: its number of training records, or equal."
            " Default: examples; under record-level privacy equal."
        ),
    )
    evaluate_every: int = Field(
        1,
        ge=0,
        description="Evaluate at the sites every so many rounds, and at the end; 0: at the end.",
    )
    select: Literal["best", "last"] | None = Field(
        None,
        description=(
            "Which global model model.safetensors holds: the best by validation loss, or the last."
            " Default: best where there is validation data and no differential privacy."
        ),
    )
    round_timeout: float = Field(
        3600.0, gt=0, description="Seconds after which a site that has not answered is dropped."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.sites_per_round is not None and self.site_sample_rate is not None:
            raise ValueError(
                f"sites_per_round = {self.sites_per_round} and site_sample_rate ="
                f" {self.site_sample_rate:g} exclude each other; keep one"
            )
        if self.sites_per_round is not None and self.min_survivors > self.sites_per_round:
            raise ValueError(
                f"min_survivors = {self.min_survivors} is above sites_per_round ="
                f" {self.sites_per_round}; lower it"
            )
        return self


class SitePrivacySection(Section):
    """Noise in shares, inside the masked sum: protects a whole site's update."""

    noise_multiplier: float | None = Field(
        None,
        ge=0,
        description=(
            "Noise standard deviation of a sum / max_update_norm, by the honest survivors alone;"
            " or give target_epsilon."
        ),
    )
    target_epsilon: float | None = Field(
        None, gt=0, description="Epsilon that the whole run may cost a site."
    )
    target_delta: float = Field(1e-6, gt=0, lt=1, description="Delta of the guarantee.")
    max_update_norm: float | None = Field(
        None,
        gt=0,
        description="L2 clip of a site's update; with adaptive clipping the largest that it gets.",
    )
    clipping: Literal["fixed", "adaptive"] = Field(
        "fixed",
        description="adaptive: the clip follows a noised quantile of norms (Andrew et al. 2021).",
    )
    initial_update_norm: float | None = Field(
        None, gt=0, description="adaptive: the first clip; default: a tenth of max_update_norm."
    )
    target_quantile: float = Field(
        0.5, gt=0, lt=1, description="adaptive: share of sites whose update is below the clip."
    )
    clip_learning_rate: float = Field(
        0.2, gt=0, le=2, description="adaptive: rate of the clip's geometric steps."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        first, largest = self.initial_update_norm, self.max_update_norm
        if first is not None and self.clipping == "fixed":
            raise ValueError(
                f"initial_update_norm = {first:g} has no effect while clipping = 'fixed'; set"
                " clipping = 'adaptive' or remove it"
            )
        if first is not None and largest is not None and first > largest:
            raise ValueError(
                f"initial_update_norm = {first:g} is above max_update_norm = {largest:g}; lower it"
            )
        return self


class PrivacySection(Section):
    """The differential-privacy guarantee."""

    unit: Literal["none", "record", "person", "site", "record_and_site", "person_and_site"] = Field(
        "none",
        description=(
            "What is protected: nothing; one record, or one person with all of theirs at a site"
            " (DP-SGD); a site's whole update (noise inside the secure sum); or both."
        ),
    )
    noise_multiplier: float | None = Field(
        None, ge=0, description="Noise standard deviation / max_grad_norm; or give target_epsilon."
    )
    target_epsilon: float | None = Field(
        None,
        gt=0,
        description="Epsilon that the whole run may cost; the noise is calibrated to it.",
    )
    target_delta: float = Field(1e-5, gt=0, lt=1, description="Delta of the guarantee.")
    max_grad_norm: float = Field(
        1.0, gt=0, description="L2 clip of the gradient of each record, or person."
    )
    neighbouring_relation: Literal["add_remove", "replace_one"] = Field(
        "add_remove", description="Which data sets count as neighbours."
    )
    metrics: Literal["suppressed", "uncovered"] | None = Field(
        None,
        description=(
            "Losses and accuracies that sites compute on their records, which the guarantee does"
            " not cover: suppressed, or sent and declared uncovered. Default: suppressed under"
            " privacy; without it they are sent."
        ),
    )
    site: SitePrivacySection = SitePrivacySection()

    @property
    def covers_records(self) -> bool:
        """Whether records or persons are protected by DP-SGD at the site."""
        return self.unit.startswith(("record", "person"))

    @property
    def covers_persons(self) -> bool:
        """Whether what DP-SGD protects is a person with all of their records at a site."""
        return self.unit.startswith("person")

    @property
    def covers_sites(self) -> bool:
        """Whether a site's whole update is protected by noise inside the secure sum."""
        return self.unit.endswith("site")

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_noise(self.covers_records, "record", self, prefix="", unit=self.unit)
        _check_noise(self.covers_sites, "site", self.site, prefix="site.", unit=self.unit)
        if self.covers_sites and self.site.max_update_norm is None:
            raise ValueError(
                f"site.max_update_norm is missing; unit = '{self.unit}' clips each site's update"
                " to it"
            )
        if self.unit == "none" and self.metrics == "suppressed":
            raise ValueError("metrics = 'suppressed' has no effect while unit = 'none'; remove it")
        return self


def _check_noise(
    covered: bool,
    level: str,
    table: PrivacySection | SitePrivacySection,
    *,
    prefix: str,
    unit: str,
) -> None:
    """Refuse noise of a level that `unit` does not cover, and a covered level without any."""
    keys = ("noise_multiplier", "target_epsilon")
    given = [key for key in keys if getattr(table, key) is not None]
    if not covered and given:
        raise ValueError(
            f"{prefix}{given[0]} = {getattr(table, given[0]):g} has no effect while unit ="
            f" '{unit}'; set unit = '{level}' or remove it"
        )
    if covered and not given:
        raise ValueError(
            f"{prefix}noise_multiplier and {prefix}target_epsilon are both missing; unit ="
            f" '{unit}' needs one"
        )


class SecureAggregationSection(Section):
    """What hides one site's update, metrics and example count from the coordinator."""

    mode: Literal["protocol", "arithmetic", "off"] = Field(
        "protocol",
        description=(
            "protocol: the coordinator learns the sum over the survivors, or nothing; arithmetic:"
            " the same sum without keys, for large simulations, hides nothing; off: it sees every"
            " update."
        ),
    )
    threshold: int | None = Field(
        None,
        ge=2,
        description="Survivors that a sum needs; default: the smallest t > 2n/3 of the cohort.",
    )
    min_cohort: int = Field(
        3, ge=3, description="Fewest sites that a sum may be over; two cannot hide from each other."
    )
    ring_bits: int = Field(32, ge=16, le=32, description="k of the ring Z/2^k that sums are in.")
    dropout_share: float = Field(
        0.1,
        ge=0,
        lt=0.5,
        description="Above 200 sites: share that may drop out, from which the graph follows.",
    )
    corrupt_share: float = Field(
        0.1,
        ge=0,
        lt=0.5,
        description="Above 200 sites: share that may side with the coordinator, likewise.",
    )
    max_update_norm: float = Field(
        16.0,
        gt=0,
        description="Bound on a site's update (L2); one beyond it is refused there, never clipped.",
    )
    max_weight: int = Field(
        10_000, ge=1, description="Public bound that example counts are clipped to."
    )


class SimulationSection(Section):
    """How a simulation is computed; none of it changes a result."""

    workers: int = Field(
        1, ge=1, le=256, description="Worker processes; 1 runs in the command's own process."
    )
    sites_directory: str | None = Field(
        None,
        description=(
            "Folder with one folder a site, made where missing: its policy, and the ledger of its"
            " lifetime budget, which last from run to run. Default: sites have neither."
        ),
    )


class AuditSection(Section):
    """Attacks that follow the last round of a simulation and check the guarantee from below."""

    methods: tuple[str, ...] = Field(
        (),
        description=(
            "What is tried, by the names that `fedtrain audit --list` prints; empty: nothing."
            " Written down before the run, so that no method is chosen by its result."
        ),
    )
    canaries: int = Field(
        5000,
        ge=100,
        le=1_000_000,
        description="Canaries of a method that has any; 5000 find noise that is half as large.",
    )
    confidence: float = Field(0.95, ge=0.5, lt=1, description="Of bounds, intervals and verdicts.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the audit's own draws.")
    quick: bool = Field(False, description="Smaller samples: a minute on one core.")


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
        _check_secure_aggregation(self)
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


def load_config(path: Path, overrides: Iterable[str] = ()) -> Config:
    """Read a TOML file and check it.

    Args:
        path: The file.
        overrides: Texts `section.key=value`, value in TOML's notation or a bare word.

    Returns:
        The config as written, defaults filled in, not yet resolved.

    Raises:
        ConfigError: The file cannot be read or does not satisfy the schema.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read ({reason}); give a TOML file") from error
    return parse_config(text, overrides, name=str(path))


def parse_config(text: str, overrides: Iterable[str] = (), *, name: str = "config") -> Config:
    """Check a config given as TOML text; see `load_config`."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: not valid TOML: {error}") from error
    for override in overrides:
        _apply_override(tree, override)
    return build_config(tree, name=name)


def build_config(tree: Mapping[str, Any], *, name: str = "config") -> Config:
    """Check a config given as nested mappings; see `load_config`."""
    try:
        return Config.model_validate_json(json.dumps(tree, default=str))  # JSON: arrays are tuples
    except ValidationError as error:
        raise ConfigError(f"{name}: {describe_problem(error, Config)}") from error


def compute_digest(config: Config) -> str:
    """Return the SHA-256 (hex) of the config's canonical form, without `LOCAL_KEYS`."""
    tree = to_tree(config)
    for keys in LOCAL_KEYS:
        table = tree
        for key in keys[:-1]:
            table = table.get(key, {})
        table.pop(keys[-1], None)
    return hashlib.sha256(to_canonical(tree).encode()).hexdigest()


_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def to_canonical(tree: Any) -> str:
    """Return JSON text that is equal for equal values: sorted keys, no white space."""
    return _CANONICAL.encode(tree)


def to_tree(config: Config) -> dict[str, Any]:
    """Return the config as nested dicts of TOML's types, keys without a value left out."""
    tree: dict[str, Any] = config.model_dump(mode="json", exclude_none=True)
    return tree


def to_toml(config: Config) -> str:
    """Return the config as TOML that `parse_config` reads back to an equal config."""
    return tomli_w.dumps(to_tree(config))


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not separator or len(parts) < 2 or not all(parts):
        raise ConfigError(f"--set {override}: write section.key=value, e.g. federation.rounds=20")
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    table = tree
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {override}: {part} is a value, not a section")
    table[parts[-1]] = value


def describe_problem(error: ValidationError, schema: type[BaseModel]) -> str:
    """Say the first problem in one line: where, which value, which bound, what to do."""
    problem = error.errors()[0]
    location = [str(part) for part in problem["loc"]]
    where = ".".join(location)
    value = problem["input"]
    if problem["type"] == "extra_forbidden":
        return f"unknown key {where}; {_suggest(location, schema)}"
    if problem["type"] == "value_error":
        text = str(problem["ctx"]["error"])
        return f"{where}.{text}" if where else text
    shown = "a table" if isinstance(value, dict) else json.dumps(value, default=str)
    return f"{where} = {shown}: {problem['msg'][:1].lower()}{problem['msg'][1:]}"


def _suggest(location: list[str], schema: type[BaseModel]) -> str:
    model = schema
    for part in location[:-1]:
        model = model.model_fields[part].annotation  # type: ignore[assignment]
    names = sorted(model.model_fields)
    near = difflib.get_close_matches(location[-1], names, n=1, cutoff=0.5)
    if near:
        return f"did you mean {'.'.join([*location[:-1], near[0]])}?"
    return f"known here: {', '.join(names)}"

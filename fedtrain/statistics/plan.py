"""What is asked of every site: columns with their public bounds, and what is summed of them.

A plan is public and the same at all sites: its text is bound into every mask key, so that a site
that is asked something else than its peers adds noise to the sum and nothing more.

Legend: m coordinates of the sum.
"""

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any, Final, Literal

from fedtrain.canonical import to_canonical
from fedtrain.config import Config
from fedtrain.data.frames import name_categories, suggest_name
from fedtrain.data.public import ARRAY_NAME, PublicConstants
from fedtrain.data.speeches import VOCABULARY
from fedtrain.errors import ConfigError, PeerError

DEFAULT_BINS: Final = 20
MAX_BINS: Final = 4096
# Pairs of columns grow with the square of their number.
MAX_LENGTH: Final = 1_000_000
_SUMS_A_PAIR: Final = 6
_OF_CLASSES: Final = (None, "classification", "anomaly")
Part = Literal["all", "train"]


@dataclass(frozen=True)
class Range:
    """A numeric column and its public bounds; what lies beyond counts as the bound."""

    name: str
    low: float
    high: float


@dataclass(frozen=True)
class Choice:
    """A categorical column and its public categories; any other counts as "other"."""

    name: str
    categories: tuple[str, ...]


@dataclass(frozen=True)
class StatisticsPlan:
    """What is summed over the records of all sites.

    Attributes:
        ranges: Numeric columns; of an array source one, `ARRAY_NAME`: all features together.
        choices: Categorical columns.
        labels: Public classes, counted; empty: they are not.
        bins: Equal bins of each histogram between the bounds; 0: none.
        correlation: Whether products of every two numeric columns are summed.
        part: Which records: all, or those for training.
        max_records: Records that one site has at most; the ring is proven for so many.
        noise_multiplier: Noise standard deviation of the sum / what one record can change in it
            (L2); 0: the sum is exact.
        tokens: Of text, the vocabulary, V tokens: counted is, of every two, in how many records
            the one follows the other.
        window: Of text, characters that a record has at most, less one.
    """

    ranges: tuple[Range, ...]
    choices: tuple[Choice, ...]
    labels: tuple[str, ...] = ()
    bins: int = DEFAULT_BINS
    correlation: bool = False
    part: Part = "all"
    max_records: int = 10_000
    noise_multiplier: float = 0.0
    tokens: tuple[str, ...] = ()
    window: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.bins <= MAX_BINS:
            raise ConfigError(f"bins = {self.bins} is not between 0 and {MAX_BINS}; 20 is usual")
        if self.max_records < 1 or not 0 <= self.noise_multiplier < math.inf:
            raise ConfigError(
                f"max_records = {self.max_records}, noise_multiplier = {self.noise_multiplier:g}:"
                " at least 1, and 0 or above are needed"
            )
        if self.length > MAX_LENGTH:
            raise ConfigError(
                f"{self.length} sums are above {MAX_LENGTH}; ask for fewer columns or bins, or"
                " leave out the correlation"
            )

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Every two numeric columns whose products are summed."""
        return list(combinations(range(len(self.ranges)), 2)) if self.correlation else []

    @property
    def length(self) -> int:
        """m: the records, then each column's sums, the labels', the pairs' and the tokens'."""
        numeric = len(self.ranges) * (3 + self.bins)
        categorical = sum(len(choice.categories) + 2 for choice in self.choices)
        pairs = _SUMS_A_PAIR * len(self.pairs) + len(self.tokens) ** 2
        return 1 + numeric + categorical + len(self.labels) + pairs

    def compute_record_norm(self) -> float:
        """Return the L2 norm that one record's values have at most, before they are rounded.

        Every value is between -1 and 1. A record is 1 in the count of records, in one cell of each
        categorical column and in one of the labels; a numeric column adds "it is there", the value,
        its square and one bin (or shares of bins that sum to 1); a pair six products. Of text it is
        1 in a cell for each different two tokens that follow one another, `window` at most.
        """
        numeric = len(self.ranges) * (3 + (self.bins > 0))
        pairs = _SUMS_A_PAIR * len(self.pairs)
        squares = 1 + numeric + len(self.choices) + (len(self.labels) > 0) + pairs
        return math.sqrt(squares + (self.window if self.tokens else 0))

    def to_text(self) -> str:
        """Return the canonical text that messages carry; of tables and images without tokens."""
        tree = asdict(self)
        if not self.tokens:
            del tree["tokens"], tree["window"]
        return to_canonical(tree)

    @classmethod
    def from_text(cls, text: str) -> "StatisticsPlan":
        """Return the plan that `to_text` wrote.

        Raises:
            PeerError: The text is not of that form.
        """
        try:
            tree: dict[str, Any] = json.loads(text)
            tree["ranges"] = tuple(Range(**one) for one in tree["ranges"])
            tree["choices"] = tuple(
                Choice(one["name"], tuple(one["categories"])) for one in tree["choices"]
            )
            names = {key: tuple(tree.get(key, ())) for key in ("labels", "tokens")}
            return cls(**(tree | names))
        except (ConfigError, KeyError, TypeError, ValueError) as error:
            raise PeerError("the statistics that are asked for cannot be read") from error


def build_plan(
    config: Config,
    public: PublicConstants,
    *,
    columns: Iterable[str] = (),
    bins: int = DEFAULT_BINS,
    correlation: bool = False,
    part: Part = "all",
    max_records: int | None = None,
) -> StatisticsPlan:
    """Return the plan over a scenario's columns, from public constants alone.

    Args:
        config: The scenario's config.
        public: What is known of the data without a record.
        columns: Only these; by default all.
        bins: Of each histogram.
        correlation: Whether every two numeric columns are compared.
        part: Which records.
        max_records: Of one site; default: `secure_aggregation.max_weight`.

    Raises:
        ConfigError: A column has no public bounds or categories, or is not there; or records are
            texts, of which there are no such statistics.
    """
    if public.is_discrete:
        raise ConfigError("records are ids of characters, which have no statistics of this kind")
    known = (ARRAY_NAME,) if public.columns is None else public.columns
    wanted = tuple(columns) or known
    ranges, choices = [], []
    for name in wanted:
        if name not in known:
            raise ConfigError(f"there is no column {name!r}; {suggest_name(name, known)}")
        if name in config.data.categories:
            choices.append(Choice(name, name_categories(config.data.categories[name])))
        else:
            ranges.append(_find_range(name, config, public))
    return StatisticsPlan(
        tuple(ranges),
        tuple(choices),
        (public.label_names or ()) if config.data.task in _OF_CLASSES else (),
        bins,
        correlation and len(ranges) > 1,
        part,
        max_records or config.secure_aggregation.max_weight,
    )


def build_asked_plan(config: Config, public: PublicConstants) -> StatisticsPlan:
    """Return the plan of a run that asks for statistics.

    The config and the source's format fix all of it, so that a site can tell whether it is asked
    for anything else; columns that its own file lacks are missing in all of its records.

    Args:
        config: The resolved config, with `[statistics]`.
        public: What is known of the data without a record.

    Raises:
        ConfigError: As `build_plan`; or nothing is asked.
    """
    section, data = config.statistics, config.data
    if section is None:
        raise ConfigError("the config asks for no statistics; add a section [statistics]")
    if data.source == "text":
        return _build_text_plan(config)
    if public.columns is not None:
        columns = section.columns or data.columns or (*data.bounds, *data.categories)
        if not columns:
            raise ConfigError(
                "no column has public bounds or categories, which every secure sum rests on; set"
                " e.g. data.bounds.age=[0,120]"
            )
        public = replace(public, columns=columns)
    plan = build_plan(
        config,
        public,
        columns=section.columns or (),
        bins=section.bins,
        correlation=section.correlation,
        max_records=section.max_records,
    )
    return replace(plan, noise_multiplier=section.noise_multiplier or 0.0)


def _build_text_plan(config: Config) -> StatisticsPlan:
    section, data = config.statistics, config.data
    if section is None or section.columns is not None or section.correlation:
        raise ConfigError(
            "data.source = 'text' has no columns: of text the pairs of tokens are counted; remove"
            " statistics.columns and statistics.correlation"
        )
    return StatisticsPlan(
        ranges=(),
        choices=(),
        bins=0,
        max_records=section.max_records or config.secure_aggregation.max_weight,
        noise_multiplier=section.noise_multiplier or 0.0,
        tokens=section.vocabulary or data.vocabulary or VOCABULARY,
        window=data.sequence_length,
    )


def build_reading_config(config: Config) -> Config:
    """Return the config that a site opens its data by.

    A question with noise is asked of data that is read as under record-level privacy, whatever the
    scenario's training protects: then neither a column's kind nor a class, and no refusal, follows
    from a record. Any other run reads its data as its config says.
    """
    section, data = config.statistics, config.data
    if section is None:
        return config
    if data.source == "text":  # of characters: else each vocabulary would have its own records
        data = data.model_copy(update={"vocabulary": None})
        config = config.model_copy(update={"data": data})
    if section.noise_multiplier is None:
        return config
    changes: dict[str, Any] = {"clip_outliers": None, "augmentation": None}
    changes["preparation"] = "none" if data.source == "text" else "bounds"
    columns = section.columns or data.columns
    if columns is not None and columns != (ARRAY_NAME,):
        changes |= {
            "columns": columns,
            "bounds": {name: data.bounds[name] for name in columns if name in data.bounds},
            "categories": {n: data.categories[n] for n in columns if n in data.categories},
            "categorical": tuple(name for name in data.categorical if name in columns),
            "zero_is_missing": tuple(name for name in data.zero_is_missing if name in columns),
        }
    privacy = config.privacy.model_copy(update={"unit": "record"})
    changed = {"data": data.model_copy(update=changes), "privacy": privacy}
    return config.model_copy(update=changed)


def compute_question_digest(plan: StatisticsPlan, cohort: int) -> str:
    """Return what names a question in a site's ledger, SHA-256, hex.

    Args:
        plan: What is asked.
        cohort: Most sites of the sum: each site's share of the noise depends on it.
    """
    text = to_canonical({"cohort": cohort, "plan": plan.to_text()})
    return hashlib.sha256(text.encode()).hexdigest()


def _find_range(name: str, config: Config, public: PublicConstants) -> Range:
    bounds = config.data.bounds.get(name)
    if public.columns is None:
        bounds = public.value_range
    if bounds is None:
        cure = f"data.bounds.{name}=[0,120]"
        if name in config.data.categorical:
            cure = f'data.categories.{name}=["a","b"]'
        raise ConfigError(
            f"column {name!r} has no public bounds or categories, which every secure sum rests on;"
            f" set e.g. {cure}"
        )
    return Range(name, *(float(bound) for bound in bounds))

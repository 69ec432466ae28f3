"""What a sum of statistics says, and what of it is withheld.

Nothing is told of fewer records than `min_records`: small bins are merged with their neighbours,
small categories pooled, and what is left too small is None. Where the pool itself is small it takes
the next category in, so that no cell follows from the others and the total. The rule protects who
reads the figures. Whoever decodes the sum has all of it, and only noise protects against them.

Legend: k bins.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedtrain.data.byte_pairs import leave_out_boundaries
from fedtrain.errors import ConfigError
from fedtrain.statistics.plan import Range, StatisticsPlan

QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
DEFAULT_MIN_RECORDS: Final = 10
OTHERS: Final = "(others)"
UNLISTED: Final = "(unlisted)"
SUCCESSIONS: Final = "two tokens"
# Of 65,000 numbers noise alone lifts one above so many standard deviations in one sum of fifty.
CLEAR: Final = 5.0
_MOST_PAIRS: Final = 40
Sums = NDArray[np.float64]


@dataclass(frozen=True)
class Histogram:
    """Counts between edges; `edges` has one more than `counts`."""

    edges: tuple[float, ...]
    counts: tuple[float, ...]

    def compute_quantile(self, share: float) -> float:
        """Return the value below which a share lies, even within a bin."""
        cumulative = np.concatenate([[0.0], np.cumsum(self.counts)])
        return float(np.interp(share * cumulative[-1], cumulative, self.edges))


@dataclass(frozen=True)
class NumericFigures:
    """A numeric column; None where too few records would tell.

    Attributes:
        count: Records with a value.
        missing_share: Of all records.
        variance: Of the population; not below 0. None also where noise hides it.
        histogram: With merged bins.
        quantiles: By share, from the histogram.
    """

    name: str
    low: float
    high: float
    count: float | None
    missing_share: float | None
    mean: float | None
    variance: float | None
    histogram: Histogram | None
    quantiles: dict[str, float]


@dataclass(frozen=True)
class ChoiceFigures:
    """A categorical column, or the labels: count by category, small ones pooled."""

    name: str
    counts: dict[str, float]
    missing_share: float | None


@dataclass(frozen=True)
class Figures:
    """All figures of one sum.

    Attributes:
        records: Over all sites; None where too few.
        numeric: In the plan's order.
        choices: Likewise.
        labels: None where they were not asked for.
        correlation: Between the numeric columns; None where too few records have both, or a
            column does not vary.
        noise_stddev: Standard deviation of the noise on every count.
        min_records: Below which nothing is told.
    """

    records: float | None
    numeric: tuple[NumericFigures, ...]
    choices: tuple[ChoiceFigures, ...]
    labels: ChoiceFigures | None
    correlation: tuple[tuple[float | None, ...], ...] | None
    noise_stddev: float
    min_records: int

    def compute_class_weights(self) -> list[float] | None:
        """Return weights that balance the classes: records / (classes x the class's records).

        None where a class is too small to be told.
        """
        counts = {} if self.labels is None else self.labels.counts
        if not counts or OTHERS in counts or min(counts.values()) < self.min_records:
            return None
        mean = sum(counts.values()) / len(counts)
        return [float(f"{mean / count:.3g}") for count in counts.values()]

    def to_json(self) -> dict[str, Any]:
        """Return the figures as values that JSON can hold."""
        return asdict(self) | {"class_weights": self.compute_class_weights()}

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> "Figures":
        """Return the figures that `to_json` wrote."""
        labels, correlation = tree["labels"], tree["correlation"]
        return cls(
            records=tree["records"],
            numeric=tuple(_read_numeric(one) for one in tree["numeric"]),
            choices=tuple(ChoiceFigures(**one) for one in tree["choices"]),
            labels=None if labels is None else ChoiceFigures(**labels),
            correlation=None if correlation is None else tuple(tuple(row) for row in correlation),
            noise_stddev=float(tree["noise_stddev"]),
            min_records=int(tree["min_records"]),
        )


def _read_numeric(tree: Mapping[str, Any]) -> NumericFigures:
    histogram = tree["histogram"]
    if histogram is not None:
        histogram = Histogram(tuple(histogram["edges"]), tuple(histogram["counts"]))
    return NumericFigures(**{**tree, "histogram": histogram})


class SumsReader:
    """Takes a sum apart in the order in which `records.compute_values` writes it."""

    def __init__(self, plan: StatisticsPlan, sums: Sums) -> None:
        self._sums = sums
        self._next = 0
        self.records = float(self.take(1)[0])
        # Per numeric column: records with a value, value, square, bins; on the scale of -1 to 1.
        self.ranges = [self.take(3 + plan.bins) for _ in plan.ranges]
        self.choices = [self.take(len(choice.categories) + 2) for choice in plan.choices]
        self.labels = self.take(len(plan.labels))
        self.pairs = [self.take(6) for _ in plan.pairs]
        self.successions = self.take(len(plan.tokens) ** 2)

    def take(self, size: int) -> Sums:
        """Return the next sums."""
        start, self._next = self._next, self._next + size
        return self._sums[start : self._next]


def build_figures(
    plan: StatisticsPlan,
    sums: Sums,
    *,
    noise_stddev: float = 0.0,
    min_records: int = DEFAULT_MIN_RECORDS,
) -> Figures:
    """Read the figures off a sum.

    Args:
        plan: What was asked.
        sums: `(m,)`, decoded.
        noise_stddev: On each of them.
        min_records: Below it a figure is withheld.

    Raises:
        ConfigError: `min_records` is below 1.

    Guarantees:
        Every count that is told is 0 or at least `min_records`, and so is the difference between
        the number of records and the counts that are told of one column.
    """
    if min_records < 1:
        raise ConfigError(f"min_records = {min_records} is below 1; 10 is usual")
    reader = SumsReader(plan, sums)
    enough = reader.records >= min_records
    least = float(min_records)
    return Figures(
        records=reader.records if enough else None,
        numeric=tuple(
            _read_range(column, part, reader.records, least)
            for column, part in zip(plan.ranges, reader.ranges, strict=True)
        ),
        choices=(
            *(
                _read_choice(choice.name, choice.categories, part, reader.records, least)
                for choice, part in zip(plan.choices, reader.choices, strict=True)
            ),
            *_read_successions(plan, reader, max(least, CLEAR * noise_stddev)),
        ),
        labels=(
            ChoiceFigures("label", pool_small(plan.labels, reader.labels, least), None)
            if plan.labels
            else None
        ),
        correlation=_read_correlation(plan, reader, least) if plan.pairs else None,
        noise_stddev=noise_stddev,
        min_records=min_records,
    )


def unscale_moments(column: Range, part: Sums) -> tuple[float, float, float]:
    """Return the count, the sum and the sum of squares of a numeric column in its own unit."""
    middle, half = (column.low + column.high) / 2, (column.high - column.low) / 2
    count, total, squares = (float(value) for value in part[:3])
    return (
        count,
        middle * count + half * total,
        middle * middle * count + 2 * middle * half * total + half * half * squares,
    )


def merge_bins(edges: Sequence[float], counts: Sums, least: float) -> Histogram | None:
    """Merge neighbouring bins, from the left, until each has `least`; None where all have less."""
    kept_edges, kept = [edges[0]], []
    held = 0.0
    for upper, count in zip(edges[1:], np.maximum(counts, 0).tolist(), strict=True):
        held += count
        if held >= least:
            kept_edges.append(upper)
            kept.append(held)
            held = 0.0
    if not kept:
        return None
    kept[-1] += held
    kept_edges[-1] = edges[-1]
    return Histogram(tuple(kept_edges), tuple(kept))


def pool_small(names: Sequence[str], counts: Sums, least: float) -> dict[str, float]:
    """Return counts by name; those above 0 and below `least` are pooled, until the pool has it.

    Empty where even all together have less.
    """
    pairs = sorted(zip(np.maximum(counts, 0).tolist(), names, strict=True))
    pooled, number = 0.0, 0
    kept: dict[str, float] = {}
    for count, name in pairs:
        if 0 < count < least or (0 < pooled < least and count > 0):
            pooled, number = pooled + count, number + 1
        else:
            kept[name] = count
    if 0 < pooled < least:
        return {}
    ordered = {name: kept[name] for name in names if name in kept}
    return ordered | ({OTHERS: pooled} if number else {})


def _read_range(column: Range, part: Sums, records: float, least: float) -> NumericFigures:
    there, total, squares = unscale_moments(column, part)
    missing = max(records - there, 0.0)
    told = there >= least and (missing >= least or missing < 0.5)
    mean: float | None = None
    variance: float | None = None
    histogram = None
    quantiles: dict[str, float] = {}
    if there >= least:
        mean = min(max(total / there, column.low), column.high)
        variance = squares / there - (total / there) ** 2
        if variance < 0:  # noise, or the rounding of a column that does not vary
            variance = None if variance < -1e-6 * (column.high - column.low) ** 2 else 0.0
        edges = np.linspace(column.low, column.high, len(part) - 2).tolist()
        histogram = merge_bins(edges, part[3:], least) if len(part) > 3 else None
    if histogram is not None:
        quantiles = {f"{share:g}": histogram.compute_quantile(share) for share in QUANTILES}
    return NumericFigures(
        name=column.name,
        low=column.low,
        high=column.high,
        count=there if told else None,
        missing_share=missing / records if told and records >= least else None,
        mean=mean,
        variance=variance,
        histogram=histogram,
        quantiles=quantiles,
    )


def _read_choice(
    name: str, categories: Sequence[str], part: Sums, records: float, least: float
) -> ChoiceFigures:
    cells = pool_small((*categories, UNLISTED, "(missing)"), part, least)
    missing = cells.pop("(missing)", None)
    if cells.get(UNLISTED) == 0:
        del cells[UNLISTED]
    share = None if missing is None or records < least else missing / records
    return ChoiceFigures(name, cells, share)


def _read_correlation(
    plan: StatisticsPlan, reader: SumsReader, least: float
) -> tuple[tuple[float | None, ...], ...]:
    size = len(plan.ranges)
    matrix: list[list[float | None]] = [[None] * size for _ in range(size)]
    for i, part in enumerate(reader.ranges):
        matrix[i][i] = 1.0 if float(part[0]) >= least else None
    for (i, j), part in zip(plan.pairs, reader.pairs, strict=True):
        matrix[i][j] = matrix[j][i] = _correlate(part, least)
    return tuple(tuple(row) for row in matrix)


def _read_successions(
    plan: StatisticsPlan, reader: SumsReader, least: float
) -> tuple[ChoiceFigures, ...]:
    """Return the most frequent pairs of tokens that are one word's, by their joint text."""
    if not plan.tokens:
        return ()
    total = reader.successions.reshape(len(plan.tokens), -1)
    kept = leave_out_boundaries(total, plan.tokens)
    kept[-1], kept[:, -1] = 0, 0  # unknown characters
    counts: dict[str, float] = {}
    for cell in np.argsort(-kept, axis=None, kind="stable")[:_MOST_PAIRS]:
        first, second = divmod(int(cell), len(plan.tokens))
        if kept[first, second] >= least:
            counts.setdefault(plan.tokens[first] + plan.tokens[second], kept[first, second].item())
    return (ChoiceFigures(SUCCESSIONS, counts, None),)


def _correlate(part: Sums, least: float) -> float | None:
    count, a, b, aa, bb, ab = (float(value) for value in part)
    if count < least:
        return None
    spread = (aa / count - (a / count) ** 2, bb / count - (b / count) ** 2)
    if min(spread) <= 1e-9:  # constant, but for rounding
        return None
    value = (ab / count - a * b / count / count) / math.sqrt(spread[0] * spread[1])
    return min(max(value, -1.0), 1.0)

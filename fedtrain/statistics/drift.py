"""How far new data is from the data that a model was trained on, from two sums of statistics.

The population stability index of a column is the sum over cells of (p - q) ln(p / q), with p and q
the shares of the two data sets: the symmetrised relative entropy of the binned column. By custom
below 0.1 is stable, 0.1 to 0.25 is worth a look, and above that a model is trained anew. Between
two samples of one population it is about (cells - 1) (1/n + 1/m) on average (chi-squared), which
is told beside it.

Legend: k cells.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from fedtrain.errors import ConfigError, DataError
from fedtrain.statistics.figures import Sums, SumsReader
from fedtrain.statistics.plan import StatisticsPlan

DEFAULT_THRESHOLD: Final = 0.25
LABEL: Final = "label"
_CELLS: Final = 10  # about so many bins of equal training counts


@dataclass(frozen=True)
class Shift:
    """One column, or the labels, in both data sets.

    Attributes:
        name: The column, or `LABEL`.
        index: Population stability index; None where too few records would tell.
        chance: What it would be on average without any shift.
        before: Share of each cell in the training data.
        after: In the new data.
        cells: What the cells are.
    """

    name: str
    index: float | None
    chance: float
    before: tuple[float, ...]
    after: tuple[float, ...]
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Drift:
    """All columns' shifts, largest first, and the labels'.

    Attributes:
        shifts: Of the feature columns.
        label: Of the labels; None where there are no classes.
        threshold: Index above which a model is to be trained anew.
    """

    shifts: tuple[Shift, ...]
    label: Shift | None
    threshold: float

    @property
    def drifted(self) -> tuple[str, ...]:
        """Names of what shifted by more than the threshold and by more than chance explains."""
        every = [*self.shifts, *([self.label] if self.label else [])]
        return tuple(shift.name for shift in every if _is_beyond(shift, self.threshold))

    def to_json(self) -> dict[str, Any]:
        """Return the drift as values that JSON can hold."""
        return asdict(self) | {"drifted": list(self.drifted), "retrain": bool(self.drifted)}


def measure_drift(
    plan: StatisticsPlan,
    before: Sums,
    after: Sums,
    *,
    min_records: int,
    threshold: float = DEFAULT_THRESHOLD,
) -> Drift:
    """Compare two sums of one plan.

    Args:
        plan: What was asked twice.
        before: `(m,)` over the training data.
        after: `(m,)` over the new data.
        min_records: Cells of fewer training records are pooled; below it in all, nothing is told.
        threshold: Index that says "retrain".

    Raises:
        ConfigError: The threshold is not above 0, or `min_records` below 1.
        DataError: A data set has fewer than `min_records` records.
    """
    if not threshold > 0 or min_records < 1:
        raise ConfigError(
            f"threshold = {threshold:g}, min_records = {min_records}: above 0 and at least 1 are"
            " needed"
        )
    old, new = SumsReader(plan, before), SumsReader(plan, after)
    if min(old.records, new.records) < min_records:
        raise DataError(
            f"one of the two data sets has fewer records than min_records = {min_records}; more"
            " data is needed to compare them"
        )
    shifts = [
        _compare_range(column.name, (column.low, column.high), pair, (old, new), min_records)
        for column, *pair in zip(plan.ranges, old.ranges, new.ranges, strict=True)
    ]
    for choice, first, second in zip(plan.choices, old.choices, new.choices, strict=True):
        cells = (*choice.categories, "unlisted", "missing")
        shifts.append(_compare_cells(choice.name, cells, first, second, min_records))
    label = None
    if plan.labels:
        label = _compare_cells(LABEL, plan.labels, old.labels, new.labels, min_records)
    shifts.sort(key=lambda shift: -1.0 if shift.index is None else -shift.index)
    shifts = [s for s in shifts if s.index is not None] + [s for s in shifts if s.index is None]
    return Drift(tuple(shifts), label, threshold)


def compute_stability_index(before: Sequence[float], after: Sequence[float]) -> float:
    """Return the population stability index of two rows of counts, `(k,)` each.

    A cell that one side lacks counts as half a record there, so that the index is finite.
    """
    p, q = (np.maximum(np.asarray(counts, np.float64), 0.5) for counts in (before, after))
    p, q = p / p.sum(), q / q.sum()
    return float(np.sum((p - q) * np.log(p / q)))


def _compare_range(
    name: str,
    bounds: tuple[float, float],
    pair: Sequence[Sums],
    readers: tuple[SumsReader, SumsReader],
    min_records: int,
) -> Shift:
    """Compare a numeric column in bins of about equal training counts, and a cell for "missing"."""
    old, new = (np.maximum(part[3:], 0.0) for part in pair)
    least = max(float(min_records), float(old.sum()) / _CELLS)
    edges = np.linspace(*bounds, len(old) + 1)
    groups, start, held = [], 0, 0.0
    for index, count in enumerate(old.tolist()):
        held += count
        if held >= least:
            groups.append((start, index + 1))
            start, held = index + 1, 0.0
    if groups:
        groups[-1] = (groups[-1][0], len(old))
    names = [f"{edges[a]:g} to {edges[b]:g}" for a, b in groups]
    missing = [
        max(reader.records - float(part[0]), 0.0)
        for reader, part in zip(readers, pair, strict=True)
    ]
    first = np.array([*(old[a:b].sum() for a, b in groups), missing[0]])
    second = np.array([*(new[a:b].sum() for a, b in groups), missing[1]])
    return _compare_cells(name, (*names, "missing"), first, second, min_records)


def _compare_cells(
    name: str, cells: Sequence[str], old: Sums, new: Sums, min_records: int
) -> Shift:
    """Compare counts cell by cell; cells in which both sides are small are pooled."""
    old, new = np.maximum(old, 0.0), np.maximum(new, 0.0)
    large = (old >= min_records) | (new >= min_records)
    rest = float(old[~large].sum()), float(new[~large].sum())
    before, after = old[large].tolist(), new[large].tolist()
    kept = [cell for cell, is_large in zip(cells, large.tolist(), strict=True) if is_large]
    if max(rest) >= min_records:
        before, after, kept = [*before, rest[0]], [*after, rest[1]], [*kept, "(others)"]
    if len(kept) < 2 or min(sum(before), sum(after)) < min_records:
        return Shift(name, None, 0.0, (), (), ())
    chance = (len(kept) - 1) * (1 / sum(before) + 1 / sum(after))
    return Shift(
        name,
        compute_stability_index(before, after),
        chance,
        tuple(_round_share(n, sum(before), min_records) for n in before),
        tuple(_round_share(n, sum(after), min_records) for n in after),
        tuple(kept),
    )


def _round_share(count: float, total: float, min_records: int) -> float:
    """Return a cell's share; a small cell's is told as that of `min_records` at most, halved."""
    return (count if count >= min_records else min_records / 2) / total


def _is_beyond(shift: Shift, threshold: float) -> bool:
    # Twice the average leaves chance about one column in twenty at ten cells.
    return shift.index is not None and shift.index > max(threshold, 2 * shift.chance)

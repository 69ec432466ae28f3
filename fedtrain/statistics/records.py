"""The values that one record adds to the sums of a plan.

Shapes: n records, m coordinates of the sum, b bins, V tokens.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fedtrain.data.byte_pairs import BytePairs
from fedtrain.data.columns import MISSING_CODE, Category, Numeric, Table
from fedtrain.data.records import Features, take_features
from fedtrain.data.speeches import VOCABULARY
from fedtrain.errors import DataError
from fedtrain.statistics.plan import Choice, Range, StatisticsPlan

Values = NDArray[np.float64]
# Values of so many records are held at a time, in cells.
_PIECE_CELLS = 2**21
# Stands for a character that is not in the alphabet, and is in no token.
_NO_CHARACTER = "\x7f"


def iterate_values(features: Features, labels: Category, plan: StatisticsPlan) -> Iterator[Values]:
    """Yield the values of all records, some records at a time.

    Args:
        features: Raw records, a table or an array.
        labels: Their classes.
        plan: What is asked.

    Yields:
        `(n', m)` float64, every value between -1 and 1; of text one row, the sum of all of them,
        which are whole numbers.

    Raises:
        DataError: A column is of another kind than the plan has it.

    Guarantees:
        * A row depends on its record and the plan alone; its L2 norm is at most
          `plan.compute_record_norm()`, whatever the record holds, NaN and infinities included.
    """
    if plan.tokens:
        yield _count_successions(features, labels, plan)
        return
    width = 0 if isinstance(features, Table) else features[:1].size
    rows = max(1, _PIECE_CELLS // (plan.length + plan.bins + width))
    for start in range(0, len(labels), rows):
        indices = np.arange(start, min(start + rows, len(labels)), dtype=np.int64)
        yield compute_values(take_features(features, indices), labels.take(indices), plan)


def compute_values(features: Features, labels: Category, plan: StatisticsPlan) -> Values:
    """Return the values of records, `(n, m)`; see `iterate_values`."""
    n = len(labels)
    parts: list[Values] = [np.ones((n, 1))]
    scaled = []
    for column in plan.ranges:
        values, bins = _read_numbers(features, column, n, plan.bins)
        scaled.append(values)
        there = ~np.isnan(values[:, :1])
        filled = np.where(there, values, 0.0)
        parts += [there.astype(np.float64), filled, bins]
    parts += [_count_choice(features, choice, n) for choice in plan.choices]
    if plan.labels:
        parts.append(_count_codes(labels.recode(plan.labels), len(plan.labels)))
    parts += [_multiply(scaled[i][:, 0], scaled[j][:, 0]) for i, j in plan.pairs]
    if plan.tokens:
        parts.append(_mark_successions(features, labels, plan))
    return np.concatenate(parts, axis=1)


def _read_numbers(features: Features, column: Range, n: int, bins: int) -> tuple[Values, Values]:
    """Return value and square on the scale of -1 to 1, `(n, 2)`, and shares of bins `(n, b)`.

    Of an array both are means over a record's features.
    """
    if isinstance(features, Table):
        raw = features.columns.get(column.name)
        if isinstance(raw, Category) and (raw.codes >= 0).any():
            raise DataError(f"column {column.name!r} holds categories, numbers are asked for")
        values = raw.values if isinstance(raw, Numeric) else np.full(n, np.nan)
        cells = values[:, None]
    else:
        cells = np.asarray(features, dtype=np.float64).reshape(n, -1)
    units = np.clip((cells - column.low) / (column.high - column.low), 0, 1)
    there = ~np.isnan(units)
    count = np.maximum(there.sum(axis=1), 1)
    signed = np.where(there, 2 * units - 1, 0.0)
    means = np.stack([signed.sum(axis=1), np.square(signed).sum(axis=1)], axis=1) / count[:, None]
    means[~there.any(axis=1)] = np.nan
    shares = np.zeros((n, bins))
    if bins:
        rows, _ = np.nonzero(there)
        places = np.minimum((units[there] * bins).astype(np.int64), bins - 1)
        weights = 1 / count[rows]
        counted = np.bincount(rows * bins + places, weights, minlength=n * bins)
        # Whole where a record has one feature; a share may exceed 1 by the rounding of its parts.
        shares = np.minimum(counted.reshape(n, bins), 1.0)
    return means, shares


def _count_choice(features: Features, choice: Choice, n: int) -> Values:
    """Return one-hot cells `(n, categories + 2)`: the categories, any other, none."""
    raw = features.columns.get(choice.name) if isinstance(features, Table) else None
    size = len(choice.categories)
    if isinstance(raw, Numeric) and not np.isnan(raw.values).all():
        raise DataError(f"column {choice.name!r} holds numbers, categories are asked for")
    if not isinstance(raw, Category):
        return _count_codes(np.full(n, size + 1), size + 2)
    codes = raw.recode(choice.categories).astype(np.int64)
    codes[codes < 0] = size
    codes[raw.codes == MISSING_CODE] = size + 1
    return _count_codes(codes, size + 2)


def _count_codes(codes: NDArray[np.integer], size: int) -> Values:
    """Return one-hot rows; a code below 0 is a row of zeros."""
    cells = np.zeros((len(codes), size))
    known = np.flatnonzero(codes >= 0)
    cells[known, codes[known]] = 1
    return cells


def _mark_successions(features: Features, labels: Category, plan: StatisticsPlan) -> Values:
    """Return 1 for each two tokens that follow one another in a record, `(n, V * V)`.

    Raises:
        DataError: Records are longer than the plan has them, or no characters.
    """
    cells = np.zeros((len(labels), len(plan.tokens) ** 2))
    for row, found in enumerate(_iterate_successions(features, labels, plan)):
        cells[row, found] = 1.0
    return cells


def _count_successions(features: Features, labels: Category, plan: StatisticsPlan) -> Values:
    """Return the number of records and the sum of their `_mark_successions`, `(1, 1 + V * V)`."""
    total = np.zeros((1, 1 + len(plan.tokens) ** 2))
    total[0, 0] = len(labels)
    for found in _iterate_successions(features, labels, plan):
        total[0, 1 + found] += 1
    return total


def _iterate_successions(
    features: Features, labels: Category, plan: StatisticsPlan
) -> Iterator[NDArray[np.int64]]:
    """Yield, of each record, the cells of the different pairs of its tokens, at most `window`."""
    if isinstance(features, Table) or features.ndim != 2 or features.shape[1] > plan.window:
        raise DataError(f"records are not texts of {plan.window + 1} characters at most")
    if len(labels.names) != len(VOCABULARY):
        raise DataError("records are not characters; leave out data.vocabulary")
    pairs, size = BytePairs(plan.tokens), len(plan.tokens)
    characters = np.array([*VOCABULARY[:-1], _NO_CHARACTER])
    texts = characters[np.concatenate([features, labels.codes[:, None]], axis=1)]
    for letters in texts:
        ids = pairs.encode("".join(letters))
        yield np.unique(ids[:-1] * size + ids[1:])


def _multiply(first: Values, second: Values) -> Values:
    """Return the six sums of a pair, `(n, 6)`, zeros where either is missing."""
    both = ~(np.isnan(first) | np.isnan(second))
    a, b = np.where(both, first, 0.0), np.where(both, second, 0.0)
    return np.stack([both.astype(np.float64), a, b, a * a, b * b, a * b], axis=1)

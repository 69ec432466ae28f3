"""Columns of a table: numbers, or categories as codes into a list of names.

Shapes: n records.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

MISSING_CODE: Final = -1
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Numeric:
    """Numbers.

    Attributes:
        values: float64 `(n,)`, NaN where missing.
    """

    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.values)

    def take(self, indices: NDArray[np.int64]) -> "Numeric":
        """Return the rows `indices`."""
        return Numeric(self.values[indices])


@dataclass(frozen=True)
class Category:
    """Categories.

    Attributes:
        codes: int32 `(n,)`, position in `names`, `MISSING_CODE` where missing.
        names: Every category, distinct; some may not occur.
    """

    codes: NDArray[np.int32]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, indices: NDArray[np.int64]) -> "Category":
        """Return the rows `indices`; the names stay."""
        return Category(self.codes[indices], self.names)

    def count(self) -> dict[str, int]:
        """Return how often each category occurs; those that do not are left out."""
        present = self.codes[self.codes >= 0]
        counts = np.bincount(present, minlength=len(self.names))
        return {self.names[code]: int(counts[code]) for code in np.flatnonzero(counts)}

    def recode(self, names: tuple[str, ...]) -> NDArray[np.int32]:
        """Return codes into `names`; `MISSING_CODE` where missing or not among them."""
        if names == self.names:
            return self.codes
        position = {name: code for code, name in enumerate(names)}
        lookup = [position.get(name, MISSING_CODE) for name in self.names]
        return np.array([*lookup, MISSING_CODE], dtype=np.int32)[self.codes]


@dataclass(frozen=True)
class Table:
    """Named columns of one length.

    Attributes:
        columns: Column by name, in order.
        rows: Number of rows; a table may have no column at all.
    """

    columns: Mapping[str, Numeric | Category]
    rows: int

    def __len__(self) -> int:
        return self.rows

    def take(self, indices: NDArray[np.int64]) -> "Table":
        """Return the rows `indices`."""
        taken = {name: column.take(indices) for name, column in self.columns.items()}
        return Table(taken, len(indices))


def sort_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return distinct names, numbers by value before texts by alphabet.

    The order of two names does not depend on which others are there, so that what is seeded at
    one site is the same whatever other sites exist.
    """
    return tuple(sorted(set(names), key=_sort_key))


def encode_values(values: NDArray[np.generic]) -> Category:
    """Return the categories of an array of integers, booleans, whole floats or texts `(n,)`.

    A whole number is named without a fraction, a boolean `false` or `true`.

    Raises:
        ValueError: A value is no category: fractional, not finite, or of another type.
    """
    distinct, inverse = np.unique(values, return_inverse=True)
    texts = [_name_value(value) for value in distinct.tolist()]
    names = sort_names(texts)
    position = {name: code for code, name in enumerate(names)}
    lookup = np.array([position[text] for text in texts], dtype=np.int32)
    return Category(lookup[inverse.reshape(-1)], names)


def _name_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    raise ValueError("not a category")


def _sort_key(name: str) -> tuple[int, float, str]:
    if _NUMBER.fullmatch(name):
        return 0, float(name), name
    return 1, 0.0, name

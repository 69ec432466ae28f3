"""The records of a data set as its source gives them, before any preparation.

Shapes: n records, each an array of `input_shape` or a row of a table.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedtrain.data.columns import Category, Numeric, Table
from fedtrain.data.persons import number_persons
from fedtrain.data.public import PublicConstants
from fedtrain.errors import DataError

Features = NDArray[Any] | Table
LARGEST: Final = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Records:
    """Every record that this process can see, held once and never copied as a whole.

    Attributes:
        features: `(n, *input_shape)` in the source's own dtype, or a table of n rows.
        labels: Class of each record; none is missing.
        public: What the source's format fixes.
        sites: Site of each record, where the source knows one.
        central: Features and labels of a central test set, where the source has one.
        persons: Person of each record `(n,)`, 0..p-1 in order of first appearance, where the
            source says who a record is about.
        person_digests: Digest of each person's name `(n,)`; see `persons.digest_persons`. Set
            where `persons` is; it leaves the process in nothing.
        targets: What each record is mapped to, float32 `(n, k)`, where that is no class; then
            labels are all alike and name the outputs.
    """

    features: Features
    labels: Category
    public: PublicConstants
    sites: Category | None = None
    central: tuple[Features, Category] | None = None
    persons: NDArray[np.int64] | None = None
    person_digests: NDArray[np.uint64] | None = field(default=None, repr=False)
    targets: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64]) -> "Records":
        """Return the records `indices`; classes, sites and the central test set stay."""
        persons, digests = self.persons, self.person_digests
        return replace(
            self,
            features=take_features(self.features, indices),
            labels=self.labels.take(indices),
            sites=None if self.sites is None else self.sites.take(indices),
            persons=None if persons is None else number_persons(persons[indices]),
            person_digests=None if digests is None else digests[indices],
            targets=None if self.targets is None else self.targets[indices],
        )


def take_features(features: Features, indices: NDArray[np.int64]) -> Features:
    """Return a copy of the rows `indices`."""
    return features.take(indices) if isinstance(features, Table) else features[indices]


def find_unusable(features: Features) -> tuple[int, str] | None:
    """Find a value that no preparation can take: NaN, infinite, or beyond float32.

    Args:
        features: Rows; NaN means 'no value' in a table and is an error in an array.

    Returns:
        Row and the name of the column or the index of the feature, or None.
    """
    if isinstance(features, Table):
        for name, column in features.columns.items():
            if isinstance(column, Numeric):
                wrong = np.abs(column.values) > LARGEST
                if wrong.any():
                    return int(np.argmax(wrong)), f"column {name!r}"
        return None
    if features.dtype.kind != "f" or not features.size:
        return None
    if features.min() >= -LARGEST and features.max() <= LARGEST:  # NaN fails both
        return None
    row, *index = np.argwhere(~(np.abs(features) <= LARGEST))[0].tolist()
    return row, f"feature index {index[0] if len(index) == 1 else tuple(index)}"


def mark_usable(features: Features, *, missing_allowed: bool) -> NDArray[np.bool_]:
    """Say of each row whether a preparation can take it, `(n,)`; see `find_unusable`.

    Args:
        features: Rows.
        missing_allowed: Whether the preparation fills numbers that a table's row lacks.
    """
    if isinstance(features, Table):
        usable = np.ones(len(features), dtype=np.bool_)
        for column in features.columns.values():
            if isinstance(column, Numeric):
                there = np.abs(column.values) <= LARGEST  # NaN is not
                usable &= (there | np.isnan(column.values)) if missing_allowed else there
        return usable
    if find_unusable(features) is None:
        return np.ones(len(features), dtype=np.bool_)
    finite = (np.abs(features) <= LARGEST).reshape(len(features), -1)
    rows: NDArray[np.bool_] = np.all(finite, axis=1)
    return rows


def check_arrays(features: NDArray[Any], labels: NDArray[Any], name: str) -> None:
    """Check that two arrays are records and their labels.

    Raises:
        DataError: The lengths differ, there is no record, or a dtype is not usable.
    """
    if features.ndim < 2 or labels.ndim != 1 or len(features) != len(labels):
        raise DataError(
            f"{name}: features have shape {features.shape} and labels {labels.shape}; features"
            " need one row a record and labels one number a record"
        )
    if not len(features):
        raise DataError(f"{name}: there are no records; give at least one")
    if features.dtype.kind not in "fiub":
        raise DataError(
            f"{name}: features have dtype {features.dtype}; convert them to numbers, e.g. float32"
        )

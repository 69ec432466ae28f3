"""What a site tells the federation so that all can prepare alike: sums, never rows.

Statistics of two sites add up to those of their union, so that the federation only needs the sum
(and secure aggregation can give it no more than that).

Shapes: n records, f features (or channels, for images).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtrain.data.columns import Category, Numeric, Table
from fedtrain.data.public import ARRAY_NAME
from fedtrain.data.records import Features
from fedtrain.errors import DataError, PeerError


@dataclass(frozen=True)
class Moments:
    """Sums over the values that are there.

    Attributes:
        count: Number of values summed, for each feature.
        total: Their sum, `(f,)`.
        squares: Sum of their squares, `(f,)`.
    """

    count: float
    total: tuple[float, ...]
    squares: tuple[float, ...]

    def __add__(self, other: "Moments") -> "Moments":
        if len(self.total) != len(other.total):
            raise DataError(
                f"one site has {len(self.total)} features and another {len(other.total)}; give all"
                " sites the same columns or image size"
            )
        return Moments(
            self.count + other.count,
            tuple(a + b for a, b in zip(self.total, other.total, strict=True)),
            tuple(a + b for a, b in zip(self.squares, other.squares, strict=True)),
        )

    def compute_mean_and_scale(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return mean and standard deviation `(f,)`; 1 in place of a deviation of (nearly) 0."""
        count = max(self.count, 1.0)
        mean = np.array(self.total) / count
        variance = np.array(self.squares) / count - mean**2
        constant = variance <= 1e-12 * (mean**2 + 1e-300)  # rounding of the difference
        return mean, np.sqrt(np.where(constant, 1.0, variance))


@dataclass(frozen=True)
class Statistics:
    """Sums over the training records of one site, or of several.

    Attributes:
        records: Number of records.
        input_shape: Shape of a record of an array source; None for tables.
        numeric: Moments by column; of an array source by `ARRAY_NAME`.
        categories: Count of each category, by column.
        missing: Number of rows without a value, by column.
        labels: Count of each class.
        quantiles: Lower and upper clip of numeric columns, where a secure sum told them.
    """

    records: int
    input_shape: tuple[int, ...] | None
    numeric: Mapping[str, Moments]
    categories: Mapping[str, Mapping[str, int]]
    missing: Mapping[str, int]
    labels: Mapping[str, int]
    quantiles: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __add__(self, other: "Statistics") -> "Statistics":
        if self.input_shape != other.input_shape:
            raise DataError(
                f"one site's records have shape {self.input_shape} and another's"
                f" {other.input_shape}; give all sites the same shape"
            )
        numeric = _merge(self.numeric, other.numeric)
        categories = {
            name: _merge(self.categories.get(name, {}), other.categories.get(name, {}))
            for name in {**self.categories, **other.categories}
        }
        for name in categories:
            if name in numeric:
                raise DataError(
                    f"column {name!r} is numeric at one site and text at another; list it in"
                    " data.categorical, or the text in data.missing"
                )
        return Statistics(
            records=self.records + other.records,
            input_shape=self.input_shape,
            numeric=numeric,
            categories=categories,
            missing={
                # A column that a site's file does not have is missing in all of its rows.
                name: self.missing.get(name, self.records) + other.missing.get(name, other.records)
                for name in {**self.missing, **other.missing}
            },
            labels=_merge(self.labels, other.labels),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the statistics as values that JSON can hold."""
        return {
            "records": self.records,
            "input_shape": None if self.input_shape is None else list(self.input_shape),
            "numeric": {
                name: [sums.count, list(sums.total), list(sums.squares)]
                for name, sums in self.numeric.items()
            },
            "categories": {name: dict(counts) for name, counts in self.categories.items()},
            "missing": dict(self.missing),
            "labels": dict(self.labels),
        }

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> "Statistics":
        """Return the statistics that `to_json` wrote.

        Raises:
            PeerError: The tree is not of that form.
        """
        try:
            shape = tree["input_shape"]
            return cls(
                records=int(tree["records"]),
                input_shape=None if shape is None else tuple(shape),
                numeric={
                    name: Moments(float(count), tuple(total), tuple(squares))
                    for name, (count, total, squares) in tree["numeric"].items()
                },
                categories={name: dict(counts) for name, counts in tree["categories"].items()},
                missing=dict(tree["missing"]),
                labels=dict(tree["labels"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise PeerError("a site's statistics cannot be read; run the same version") from error


def compute_statistics(features: Features, labels: Category) -> Statistics:
    """Return the sums over one site's training records.

    A column without any value at this site adds to `missing` alone, so that it agrees with either
    kind elsewhere.
    """
    if not isinstance(features, Table):
        shape = features.shape[1:]
        numeric = {ARRAY_NAME: _sum_array(features)} if len(features) else {}
        return Statistics(len(features), shape, numeric, {}, {}, labels.count())
    numeric, categories, missing = {}, {}, {}
    for name, column in features.columns.items():
        if isinstance(column, Numeric):
            values = column.values[~np.isnan(column.values)]
            missing[name] = len(features) - len(values)
            if len(values):
                total, squares = float(values.sum()), float(np.dot(values, values))
                numeric[name] = Moments(float(len(values)), (total,), (squares,))
        else:
            counts = column.count()
            missing[name] = len(features) - sum(counts.values())
            if counts:
                categories[name] = counts
    return Statistics(len(features), None, numeric, categories, missing, labels.count())


def sum_statistics(statistics: Iterable[Statistics]) -> Statistics:
    """Return the sum over sites.

    Raises:
        DataError: There are none, or sites disagree on shape or on a column's kind.
    """
    every = list(statistics)
    if not every:
        raise DataError("no site reported statistics; the preparation needs at least one site")
    return reduce(lambda total, next_: total + next_, every)


def _sum_array(features: NDArray[Any]) -> Moments:
    """Sum each feature, or each channel where a record has three dimensions or more."""
    values = features.astype(np.float64)
    axes = (0, *range(2, values.ndim)) if values.ndim > 3 else (0,)
    total, squares = values.sum(axis=axes), np.square(values).sum(axis=axes)
    count = values.size / total.size
    return Moments(count, tuple(total.reshape(-1).tolist()), tuple(squares.reshape(-1).tolist()))


def _merge(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(first)
    for name, value in second.items():
        merged[name] = merged[name] + value if name in merged else value
    return merged

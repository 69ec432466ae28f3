"""How one column of a table becomes inputs of a model.

Shapes: n rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtrain.data.columns import MISSING_CODE, Category, Numeric, Table
from fedtrain.errors import DataError


@dataclass(frozen=True)
class NumericColumn:
    """One number of a table: `(value - center) / scale`.

    Attributes:
        name: Name of the column.
        center: What is subtracted.
        scale: What is divided by, above 0.
        fill: What stands for a missing value, before scaling; None refuses one.
        clip: Values are clipped to these two, before scaling; None: they are not.
    """

    name: str
    center: float
    scale: float
    fill: float | None
    clip: tuple[float, float] | None = None


@dataclass(frozen=True)
class CategoryColumn:
    """One category of a table, one-hot; unknown categories are all zero.

    Attributes:
        name: Name of the column.
        categories: Names, in the order of the outputs.
        marks_missing: Whether one more output says that the value is missing.
    """

    name: str
    categories: tuple[str, ...]
    marks_missing: bool


def apply_columns(
    table: Table, columns: tuple[NumericColumn | CategoryColumn, ...], *, clip: bool
) -> NDArray[np.float32]:
    """Return the prepared columns side by side, `(n, width)`.

    Args:
        table: Raw columns; one that it lacks counts as missing in every row.
        columns: What to make of each.
        clip: Whether scaled numbers are clipped to [0, 1].

    Raises:
        DataError: A column is of the other kind, or has a missing value that nothing fills.
    """
    parts = []
    for column in columns:
        raw = table.columns.get(column.name)
        if isinstance(column, NumericColumn):
            parts.append(_scale_numbers(raw, column, rows=len(table), clip=clip))
        else:
            parts.append(_encode_one_hot(raw, column, len(table)))
    return np.ascontiguousarray(np.concatenate(parts, axis=1), dtype=np.float32)


def _scale_numbers(
    raw: Numeric | Category | None, column: NumericColumn, *, rows: int, clip: bool
) -> NDArray[np.float64]:
    if isinstance(raw, Category) and (raw.codes >= 0).any():
        raise DataError(f"column {column.name!r} holds categories, the model takes a number")
    values = raw.values if isinstance(raw, Numeric) else np.full(rows, np.nan)
    absent = np.isnan(values)
    if column.fill is not None:
        values = np.where(absent, column.fill, values)
    elif absent.any():
        raise DataError(
            f"column {column.name!r} has missing values, which data.preparation = 'none' cannot"
            f" fill; set 'standardise', or data.bounds.{column.name} with 'bounds'"
        )
    if column.clip is not None:
        values = np.clip(values, *column.clip)
    scaled = (values - column.center) / column.scale
    return (np.clip(scaled, 0, 1) if clip else scaled)[:, None]


def _encode_one_hot(
    raw: Numeric | Category | None, column: CategoryColumn, rows: int
) -> NDArray[np.float64]:
    if isinstance(raw, Numeric) and not np.isnan(raw.values).all():
        raise DataError(f"column {column.name!r} holds numbers, the model takes a category")
    width = len(column.categories)
    one_hot = np.zeros((rows, width + 1))
    if isinstance(raw, Category):
        codes = raw.recode(column.categories)
        known = np.flatnonzero(codes >= 0)
        one_hot[known, codes[known]] = 1
        one_hot[raw.codes == MISSING_CODE, width] = 1
    else:
        one_hot[:, width] = 1
    return one_hot if column.marks_missing else one_hot[:, :width]


def column_to_json(column: NumericColumn | CategoryColumn) -> dict[str, Any]:
    """Return the column as values that JSON can hold."""
    if isinstance(column, NumericColumn):
        tree: dict[str, Any] = {
            "kind": "numeric",
            "name": column.name,
            "center": column.center,
            "scale": column.scale,
            "fill": column.fill,
        }
        return tree if column.clip is None else tree | {"clip": list(column.clip)}
    return {
        "kind": "category",
        "name": column.name,
        "categories": list(column.categories),
        "marks_missing": column.marks_missing,
    }


def column_from_json(tree: Mapping[str, Any]) -> NumericColumn | CategoryColumn:
    """Return the column that `column_to_json` wrote."""
    if tree["kind"] == "numeric":
        clip = tree.get("clip")
        return NumericColumn(
            tree["name"],
            tree["center"],
            tree["scale"],
            tree["fill"],
            None if clip is None else tuple(clip),
        )
    return CategoryColumn(tree["name"], tuple(tree["categories"]), tree["marks_missing"])

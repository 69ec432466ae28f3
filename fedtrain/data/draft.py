"""A first scenario for a table: what its columns look like, for a person to correct."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from fedtrain.config import DataSection
from fedtrain.data.frames import (
    FrameRules,
    clean_frame,
    detect_kinds,
    encode_categories,
    suggest_name,
)
from fedtrain.data.labels import parse_expression
from fedtrain.data.table_files import SITE, read_table, read_tables
from fedtrain.errors import ConfigError, DataError

_MOST_CATEGORIES: Final = 30
_MOST_CLASSES: Final = 20
_SITES: Final = 5
_MISSING: Final = DataSection().missing


@dataclass(frozen=True)
class Draft:
    """What a table suggests.

    Attributes:
        tree: The sections and keys of a scenario.
        left_out: Why columns are not among `data.columns`, by name.
    """

    tree: dict[str, dict[str, Any]]
    left_out: Mapping[str, str] = field(default_factory=dict)


def draft_scenario(path: Path, *, label: str, site_column: str | None = None) -> Draft:
    """Return a scenario that trains on a table.

    Its bounds, categories and classes are what the table has, bounds rounded outwards: a start for
    whoever knows what they can be, and no public constants.

    Args:
        path: A file, or a folder with one file a site.
        label: Column that is predicted: classes where it has few values or texts, else a number; or
            an expression such as `num > 0`.
        site_column: Column that names the site of each row, in a file of all sites.

    Raises:
        ConfigError: A column is not there, or none is left to learn from.
        DataError: The table cannot be read, or the label has no value.
    """
    source = _find_source(path)
    frame = read_tables(path, source) if path.is_dir() else read_table(path)
    expression = parse_expression(label)
    label_column = expression.column if expression else label
    for name in filter(None, (label_column, site_column)):
        if name not in frame.columns:
            raise ConfigError(f"{path} has no column {name!r}; {suggest_name(name, frame.columns)}")
    columns = [name for name in frame.columns if name not in (label_column, site_column, SITE)]
    data: dict[str, Any] = {"source": source, "path": str(path), "label": label}
    if site_column is not None:
        data["site_column"] = site_column
    if expression is None:
        data |= _describe_label(_clean(frame, label))
    bounds, categories, left_out = {}, {}, {}
    for name in columns:
        found = _describe_column(frame, name)
        if isinstance(found, str):
            left_out[name] = found
        elif found and isinstance(found[0], str):
            categories[name] = found
        else:
            bounds[name] = found
    if not bounds and not categories:
        raise ConfigError(f"{path}: no column but {label_column!r} is one to learn from")
    data["columns"] = [name for name in columns if name not in left_out]
    data |= {"preparation": "bounds", "bounds": bounds, "categories": categories}
    natural = path.is_dir() or site_column is not None
    partition = {"scheme": "natural"} if natural else {"scheme": "iid", "sites": _SITES}
    tree = {
        "data": data,
        "partition": partition,
        "model": {"name": "mlp", "hidden": [32]},
        "secure_aggregation": {"mode": "protocol"},
    }
    return Draft(tree, left_out)


def _find_source(path: Path) -> str:
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; check its name")
    suffixes = {file.suffix for file in path.iterdir()} if path.is_dir() else {path.suffix}
    for source in ("csv", "parquet"):
        if f".{source}" in suffixes:
            return source
    raise DataError(f"{path}: give a .csv or .parquet file, or a folder with one of them a site")


def _clean(frame: pl.DataFrame, name: str) -> pl.Series:
    return clean_frame(frame.select(name), _MISSING).to_series()


def _describe_label(values: pl.Series) -> dict[str, Any]:
    """Return the classes, or the bounds of a number."""
    names = encode_categories(values).names
    if not names:
        raise DataError(f"label column {values.name!r} has no value in any row; name another")
    numbers = values.cast(pl.Float64, strict=False)
    if len(names) > _MOST_CLASSES and numbers.null_count() == values.null_count():
        return {"task": "regression", "target_bounds": _round_outwards(numbers)}
    return {"classes": list(names)}


def _describe_column(frame: pl.DataFrame, name: str) -> list[float] | list[str] | str:
    """Return a column's bounds or categories, or why it is left out."""
    try:
        values = _clean(frame, name)
    except DataError:
        return f"of type {frame[name].dtype}"
    if not values.count():
        return "without a value"
    if detect_kinds(values.to_frame(), FrameRules(_MISSING))[name] == "numeric":
        numbers = values.cast(pl.Float64)
        if _counts_rows(numbers):
            return "a number for each row: a name?"
        return _round_outwards(numbers)
    names = encode_categories(values).names
    if len(names) > _MOST_CATEGORIES:
        return f"{len(names)} texts: a name or a date?"
    return list(names)


def _counts_rows(numbers: pl.Series) -> bool:
    """Say whether whole numbers never repeat, in a table of some length."""
    there = numbers.drop_nulls()
    whole = bool((there == there.round()).all())
    return len(there) > _MOST_CATEGORIES and whole and there.n_unique() == len(there)


def _round_outwards(numbers: pl.Series) -> list[float]:
    """Return bounds around all finite numbers, in steps of the power of ten below their spread."""
    values = numbers.drop_nulls().to_numpy()
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if low == high:
        return [low - 1, high + 1]
    step = 10.0 ** math.floor(math.log10(high - low))
    digits = max(0, -math.floor(math.log10(step)))
    found = (math.floor(low / step) * step, math.ceil(high / step) * step)
    return [round(one, digits) for one in found]

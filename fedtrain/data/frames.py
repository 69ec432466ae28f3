"""From text to columns: missing values, numbers, categories, labels of a polars frame.

A frame is what a file holds; a `Table` is what a preparation takes. Every rule here is one that
a site can apply alone.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from fedtrain.data.columns import MISSING_CODE, Category, Numeric, Table, sort_names
from fedtrain.errors import DataError

Kind = Literal["numeric", "category"]


@dataclass(frozen=True)
class FrameRules:
    """How to read the cells of a frame.

    Attributes:
        missing: Texts that mean 'no value'.
        zero_is_missing: Numeric columns in which 0 means 'no value'.
        categorical: Columns that are categories whatever they look like.
        numeric: Columns that are numbers whatever they look like.
    """

    missing: tuple[str, ...]
    zero_is_missing: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()


def clean_frame(frame: pl.DataFrame, missing: Sequence[str]) -> pl.DataFrame:
    """Return the frame with texts stripped and missing values as null.

    Raises:
        DataError: A column is neither text nor number nor boolean.
    """
    return frame.with_columns([_clean_column(series, missing) for series in frame.get_columns()])


def _clean_column(series: pl.Series, missing: Sequence[str]) -> pl.Series:
    if series.dtype == pl.Null:
        return series.cast(pl.String)
    if series.dtype == pl.Boolean:
        return series.cast(pl.Int8)
    if series.dtype.is_float():
        return series.fill_nan(None)
    if series.dtype.is_numeric():
        return series
    if series.dtype not in (pl.String, pl.Categorical, pl.Enum):
        raise DataError(
            f"column {series.name!r} has type {series.dtype}; convert it to a number or a text, or"
            " leave it out of data.columns"
        )
    text = series.cast(pl.String).str.strip_chars()
    blank = text.is_in(list(missing))
    return text.set(blank.fill_null(value=False), None)


def detect_kinds(
    frame: pl.DataFrame, rules: FrameRules, *, sites: pl.Series | None = None
) -> dict[str, Kind]:
    """Say of every column of a cleaned frame whether it holds numbers or categories.

    A column is numeric where every value that is there reads as a number.

    Args:
        frame: Cleaned rows.
        rules: Columns whose kind is given.
        sites: Name of the site of each row, where sites hold files of their own.

    Raises:
        DataError: A column is numeric at one site and text at another. Sites must agree, as each
            can only see its own rows.
    """
    kinds: dict[str, Kind] = {}
    for series in frame.get_columns():
        if series.name in rules.categorical:
            kinds[series.name] = "category"
        elif series.name in rules.numeric or series.dtype != pl.String:
            kinds[series.name] = "numeric"
        else:
            kinds[series.name] = _detect_kind(series, sites)
    return kinds


def _detect_kind(series: pl.Series, sites: pl.Series | None) -> Kind:
    there = series.is_not_null()
    text = there & series.cast(pl.Float64, strict=False).is_null()
    if not text.any():
        return "numeric"
    if sites is not None:
        per_site = (
            pl.DataFrame({"site": sites, "there": there, "text": text})
            .group_by("site")
            .agg(pl.col("there").any(), pl.col("text").any())
            .sort("site")
        )
        numeric = per_site.filter(pl.col("there") & ~pl.col("text"))["site"].to_list()
        if numeric:
            other = per_site.filter(pl.col("text"))["site"][0]
            raise DataError(
                f"column {series.name!r} is numeric at site {numeric[0]!r} and text at site"
                f" {other!r}; list it in data.categorical, or the text in data.missing"
            )
    return "category"


def build_table(frame: pl.DataFrame, kinds: Mapping[str, Kind], rules: FrameRules) -> Table:
    """Return the columns named in `kinds` of a cleaned frame.

    Raises:
        DataError: A numeric column holds text.
    """
    columns: dict[str, Numeric | Category] = {}
    for name, kind in kinds.items():
        if kind == "category":
            columns[name] = encode_categories(frame[name])
        else:
            columns[name] = _read_numbers(
                frame[name], zero_is_missing=name in rules.zero_is_missing
            )
    return Table(columns, frame.height)


def encode_categories(series: pl.Series) -> Category:
    """Return the categories of a cleaned column; `1`, `1.0` and `01` are one category, `1`."""
    text = name_values(series)
    names = sort_names(text.drop_nulls().unique().to_list())
    if not names:
        return Category(np.full(len(text), MISSING_CODE, dtype=np.int32), ())
    codes = text.cast(pl.Enum(names)).to_physical().cast(pl.Int32).fill_null(MISSING_CODE)
    return Category(codes.to_numpy(), names)


def name_values(series: pl.Series) -> pl.Series:
    """Return the values as texts, whole numbers without a fraction."""
    text = series.cast(pl.String)
    number = series.cast(pl.Float64, strict=False)
    whole = number.is_finite() & (number == number.round()) & (number.abs() < 2.0**53)
    plain = number.set(~whole.fill_null(value=False), None).cast(pl.Int64).cast(pl.String)
    return plain.zip_with(whole.fill_null(value=False), text)


def name_categories(names: Iterable[str]) -> tuple[str, ...]:
    """Return categories as a config writes them in the form that `encode_categories` gives."""
    return tuple(name_values(pl.Series(list(names), dtype=pl.String)).to_list())


def mark_readable(frame: pl.DataFrame, numeric: Iterable[str]) -> pl.Series:
    """Say of each row of a cleaned frame whether its numeric cells are numbers or missing."""
    readable = pl.repeat(True, frame.height, eager=True)
    for name in numeric:
        readable &= frame[name].is_null() | frame[name].cast(pl.Float64, strict=False).is_not_null()
    return readable


def _read_numbers(series: pl.Series, *, zero_is_missing: bool) -> Numeric:
    numbers = series.cast(pl.Float64, strict=False)
    if numbers.null_count() > series.null_count():
        raise DataError(
            f"column {series.name!r} holds text that is no number; list that text in data.missing,"
            " or the column in data.categorical or data.categories"
        )
    values = numbers.fill_null(np.nan).to_numpy().astype(np.float64)
    if zero_is_missing:
        values[values == 0] = np.nan
    return Numeric(values)


def suggest_name(name: str, known: Iterable[str]) -> str:
    """Return `did you mean 'x'?`, or the known names where none is near."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known here: {', '.join(names[:20])}"

"""CSV and Parquet: one file a site in a folder, or one file for all.

Shapes: n rows.
"""

import csv
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fedtrain.config import Config, DataSection
from fedtrain.data.columns import Category, sort_names
from fedtrain.data.frames import (
    FrameRules,
    build_table,
    clean_frame,
    detect_kinds,
    encode_categories,
    mark_readable,
    name_values,
    suggest_name,
)
from fedtrain.data.labels import EXPRESSION_NAMES, LabelExpression, compute_label, parse_expression
from fedtrain.data.persons import digest_persons
from fedtrain.data.public import PublicConstants, apply_config
from fedtrain.data.records import Records
from fedtrain.data.requirements import resolve_preparation_kind, verify_preparation
from fedtrain.data.schema_faults import MissingColumnError
from fedtrain.data.series import build_windows
from fedtrain.data.targets import (
    has_targets,
    label_alike,
    mark_targets,
    name_outputs,
    read_targets,
)
from fedtrain.errors import ConfigError, DataError

logger = logging.getLogger("fedtrain.data")

# No file has columns of these names.
SITE: Final = "\x00site"
_PERSON: Final = "\x00person"
_LABEL: Final = "\x00label"  # of records with targets: 0 where all are there
_TARGET: Final = "\x00target "


def load_table_files(config: Config, path: Path, *, strict: bool = True) -> Records:
    """Read the table that `data.path` names.

    Args:
        config: Label, columns, site and person column, and rules for missing values.
        path: A file, or a folder with one `.csv` or `.parquet` file a site.
        strict: Refuse text in a numeric column, a label that is no class, and a row without a
            person; else such rows are left out, or have a class that is not among the public ones.

    Returns:
        Records with a site for each row where there is a folder or a site column, and a person
        where there is a person column. Rows without a label are left out.

    Raises:
        ConfigError: A key is missing or names a column that is not there.
        DataError: A file cannot be read, is ragged or empty, a column is not usable, or a row
            with a label has no person.
    """
    data = config.data
    if data.task == "forecasting":
        return _load_series(config, path, strict=strict)
    if data.label is None and data.targets is None:
        raise ConfigError(
            f"data.label is missing and data.source = {data.source!r} needs it; name the label"
            " column, or an expression such as 'num > 0'"
        )
    expression = None if data.label is None else parse_expression(data.label)
    label_column = expression.column if expression else (data.label or (data.targets or ("",))[0])
    if expression and has_targets(config):
        raise ConfigError(
            f"data.label = {data.label!r} compares, data.task = '{data.task}' predicts the column"
            f" itself; set data.label = '{label_column}'"
        )
    frame = read_tables(path, data.source) if path.is_dir() else read_table(path)
    frame = _move_site_column(frame, data, label_column)
    frame = _move_person_column(frame, data, label_column)
    if has_targets(config):
        frame = _move_targets(frame, data.targets or (label_column,), data, strict=strict)
        features = _select_features(frame, data, _LABEL)
        return _build_records(
            frame, features, frame[_LABEL], config=config, expression=None, strict=strict
        )
    features = _select_features(frame, data, label_column)
    label = clean_frame(frame.select(label_column), data.missing).to_series()
    labels = label if expression is None else compute_label(label, expression, strict=strict)
    return _build_records(
        frame, features, labels, config=config, expression=expression, strict=strict
    )


def read_table(path: Path) -> pl.DataFrame:
    """Read one CSV file, every cell as text, or one Parquet file with its types.

    Raises:
        DataError: The file is missing, not readable, ragged, or has no rows.
    """
    with _named_errors(path):
        if path.suffix == ".parquet":
            frame = pl.read_parquet(path)
        else:
            frame = pl.read_csv(path, infer_schema=False)
            # A short row ends in a missing value: only then look for one.
            if frame.width > 1 and frame[:, -1].null_count():
                _verify_even(path)
    for name in frame.columns:
        original, marked, _ = name.rpartition("_duplicated_")
        if marked and original in frame.columns:
            raise DataError(f"{path.name} has two columns {original!r}; rename or remove one")
    if not frame.height:
        raise DataError(f"{path.name} has a header and no rows; remove it or fill it")
    return frame


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or ("not a table" if path.exists() else "no such file")
        raise DataError(f"{path}: cannot be read ({reason}); check data.path") from error
    except pl.exceptions.NoDataError as error:
        raise DataError(f"{path.name} is empty; it needs a header and rows") from error
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        if path.suffix != ".parquet":
            _verify_even(path)
        raise DataError(
            f"{path.name} is not readable as {path.suffix.lstrip('.') or 'a table'}"
            f" ({str(error).splitlines()[0]}); export it again as UTF-8"
        ) from error


def _verify_even(path: Path) -> None:
    """Raise for the first row that has more or fewer fields than the header."""
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        reader = csv.reader(file)
        width = len(next(reader, []))
        for row in reader:
            if row and len(row) != width:
                raise DataError(
                    f"{path.name} line {reader.line_num} has {len(row)} fields, its header has"
                    f" {width}; correct that line"
                )


def read_tables(path: Path, suffix: str) -> pl.DataFrame:
    """Read a folder's files, one a site, into one frame with the site of each row.

    Raises:
        DataError: There is no such file, or one cannot be read; see `read_table`.
    """
    files = sorted(path.glob(f"*.{suffix}"))
    if not files:
        raise DataError(f"{path}: there is no .{suffix} file; check data.path and data.source")
    frames = [
        read_table(file).with_columns(pl.lit(file.stem, dtype=pl.String).alias(SITE))
        for file in files
    ]
    return pl.concat(frames, how="diagonal_relaxed")


def _move_site_column(frame: pl.DataFrame, data: DataSection, label: str) -> pl.DataFrame:
    """Let `data.site_column` say the site of each row instead of the file."""
    name = data.site_column
    if name is None:
        return frame
    _verify_column(name, frame, "data.site_column")
    if name == label:
        raise ConfigError(f"data.site_column = {name!r} is the label column too; name another")
    sites = clean_frame(frame.select(name), data.missing).to_series().cast(pl.String)
    if sites.null_count():
        raise DataError(f"site column {name!r} is empty in some rows; fill it or remove those rows")
    return frame.drop(name).with_columns(sites.alias(SITE))


def _move_person_column(frame: pl.DataFrame, data: DataSection, label: str) -> pl.DataFrame:
    """Let `data.person_column` say the person of each row, and be no feature.

    What differs in the form of a number alone is one person: `7`, `7.0` and `07`. So a person that
    two files write differently is not protected as two; taking two persons for one costs no
    privacy.
    """
    name = data.person_column
    if name is None:
        return frame
    for key, other in (("label", label), ("site_column", data.site_column)):
        if name == other:
            raise ConfigError(f"data.person_column = {name!r} is data.{key} too; name another")
    _verify_column(name, frame, "data.person_column")
    if name in (data.columns or ()):
        raise ConfigError(f"data.columns holds the person column {name!r}; remove it")
    persons = name_values(clean_frame(frame.select(name), data.missing).to_series())
    return frame.drop(name).with_columns(persons.alias(_PERSON))


def _select_features(frame: pl.DataFrame, data: DataSection, label: str) -> tuple[str, ...]:
    _verify_column(label, frame, "label column")
    kept = (label, SITE, _PERSON)
    rest = [name for name in frame.columns if name not in kept and not name.startswith(_TARGET)]
    for name in data.columns or ():
        if name == label:
            raise ConfigError(f"data.columns holds the label column {name!r}; remove it")
        if name not in rest:
            raise MissingColumnError(
                f"data.columns names no column {name!r}; {suggest_name(name, rest)}"
            )
    if not rest:
        raise DataError(f"there is no column but the label {label!r}; add feature columns")
    return data.columns or tuple(rest)


def _verify_column(name: str, frame: pl.DataFrame, what: str) -> None:
    known = [column for column in frame.columns if column != SITE]
    if name not in known:
        raise MissingColumnError(f"{what} {name!r} does not exist; {suggest_name(name, known)}")


def _build_records(
    frame: pl.DataFrame,
    features: tuple[str, ...],
    labels: pl.Series,
    *,
    config: Config,
    expression: LabelExpression | None,
    strict: bool,
) -> Records:
    data = config.data
    outputs = [name for name in frame.columns if name.startswith(_TARGET)]
    names = name_outputs(config, len(outputs)) if outputs else None
    public = apply_config(PublicConstants(columns=features, label_names=names), config)
    verify_preparation(config, public)
    sites = _encode_sites(frame[SITE]) if SITE in frame.columns else None
    rules = _make_rules(config, public, features)
    clean = clean_frame(frame.select(features), data.missing)
    keep = labels.is_not_null()
    if not strict:
        keep &= mark_readable(clean, rules.numeric)
        if _PERSON in frame.columns:
            keep &= frame[_PERSON].is_not_null()
    if not keep.all():
        event = "rows_without_label" if strict else "unusable_rows"
        logger.warning("event=%s_left_out", event)
        frame, clean, labels = frame.filter(keep), clean.filter(keep), labels.filter(keep)
    if strict and not frame.height:
        raise DataError(f"label column {data.label!r} has no value in any row; check data.label")
    natural = config.partition.scheme == "natural" and sites is not None
    kinds = detect_kinds(clean, rules, sites=frame[SITE] if natural else None)
    persons = _number_persons(frame[_PERSON], data) if _PERSON in frame.columns else None
    targets, found = None, None
    if names is not None:
        what = f"columns {', '.join(name.removeprefix(_TARGET) for name in outputs)}"
        targets = read_targets(frame.select(outputs).to_numpy(), config, what)
        found = label_alike(names, len(targets))
    return Records(
        features=build_table(clean, kinds, rules),
        labels=_encode_labels(labels, expression, data.classes, strict=strict)
        if found is None
        else found,
        public=public,
        sites=None if sites is None else sites.take(np.flatnonzero(keep.to_numpy())),
        persons=persons,
        person_digests=None if persons is None else digest_persons(frame[_PERSON].to_numpy()),
        targets=targets,
    )


def _move_targets(
    frame: pl.DataFrame, names: tuple[str, ...], data: DataSection, *, strict: bool
) -> pl.DataFrame:
    """Let columns be targets and no features; a row that lacks one has no label.

    Unless `strict`, nor has one with a target that cannot be used: to refuse it would tell of it.
    """
    for name in names:
        _verify_column(name, frame, "target column")
        if name in (data.columns or ()):
            raise ConfigError(f"data.columns holds the target column {name!r}; remove it")
    raw = clean_frame(frame.select(names), data.missing)
    numbers = raw.select(pl.all().cast(pl.Float64, strict=False))
    if strict and sum(numbers.null_count().row(0)) > sum(raw.null_count().row(0)):
        raise DataError(
            f"target columns {', '.join(names)} hold text that is no number; correct it, or list"
            " it in data.missing"
        )
    there = numbers.select(pl.all_horizontal(pl.all().is_not_null())).to_series()
    if not strict:
        there &= pl.Series(mark_targets(numbers.to_numpy(), data.task))
    label = pl.Series(_LABEL, [0]).new_from_index(0, frame.height)
    marked = pl.select(pl.when(there).then(label)).to_series().alias(_LABEL)
    moved = numbers.rename({name: f"{_TARGET}{name}" for name in names})
    return frame.drop(names).hstack(moved).with_columns(marked)


def _load_series(config: Config, path: Path, *, strict: bool) -> Records:
    """Read the column `data.label` of each site's file, its rows in order of time."""
    data = config.data
    if data.label is None:
        raise ConfigError("data.label is missing; data.task = 'forecasting' needs the column")
    frame = read_tables(path, data.source) if path.is_dir() else read_table(path)
    frame = _move_site_column(frame, data, data.label)
    if SITE not in frame.columns:
        frame = frame.with_columns(pl.lit(path.stem).alias(SITE))
    _verify_column(data.label, frame, "data.label")
    column = clean_frame(frame.select(data.label), data.missing).to_series()
    values = column.cast(pl.Float64, strict=False).fill_null(float("nan"))
    sites = frame[SITE]
    series = {str(site): values.filter(sites == site).to_numpy() for site in sites.unique()}
    return build_windows(series, config, strict=strict)


def _make_rules(config: Config, public: PublicConstants, features: tuple[str, ...]) -> FrameRules:
    data = config.data
    is_public = config.privacy.unit != "none" or (
        resolve_preparation_kind(config, public) == "bounds"
    )
    categorical = (*data.categorical, *data.categories)
    return FrameRules(
        missing=data.missing,
        zero_is_missing=data.zero_is_missing,
        categorical=categorical,
        numeric=tuple(name for name in features if is_public and name not in categorical),
    )


def _encode_labels(
    labels: pl.Series,
    expression: LabelExpression | None,
    classes: tuple[str, ...] | None,
    *,
    strict: bool,
) -> Category:
    if expression is None:
        numbers = labels.cast(pl.Float64, strict=False)
        if strict and (numbers != numbers.round()).any():
            raise DataError(
                f"label column {labels.name!r} holds fractions, which are no classes; compare it,"
                f" e.g. data.label = '{labels.name} > 0'"
            )
        return encode_categories(labels)
    codes = labels.cast(pl.Int32).to_numpy()
    return Category(codes, classes or EXPRESSION_NAMES)


def _encode_sites(sites: pl.Series) -> Category:
    names = sort_names(sites.unique().to_list())
    codes = sites.cast(pl.Enum(names)).to_physical().cast(pl.Int32)
    return Category(codes.to_numpy(), names)


def _number_persons(persons: pl.Series, data: DataSection) -> NDArray[np.int64]:
    if persons.null_count():
        raise DataError(
            f"person column {data.person_column!r} is empty in some rows, which then have no unit"
            " to be protected with; fill it or remove those rows"
        )
    distinct = persons.unique(maintain_order=True)  # so that codes follow the first appearance
    return persons.cast(pl.Enum(distinct)).to_physical().cast(pl.Int64).to_numpy()

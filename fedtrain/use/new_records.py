"""Records that no site trained on, read from a file and prepared as the run's were.

A table may have more columns than the model takes, in any order; one that it lacks counts as
missing, as it does at a site. Nothing is fitted: means, bounds and categories are the run's.

Shapes: n records.
"""

import difflib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fedtrain.config import Config
from fedtrain.data.array_files import read_labels, read_npz
from fedtrain.data.columns import Category
from fedtrain.data.encoding import NumericColumn
from fedtrain.data.frames import clean_frame, encode_categories, suggest_name
from fedtrain.data.labels import compute_label, parse_expression
from fedtrain.data.preparation import Preparation
from fedtrain.data.records import Features
from fedtrain.data.sources import load_records
from fedtrain.data.table_files import read_table
from fedtrain.data.targets import has_targets, read_targets
from fedtrain.errors import ConfigError, DataError
from fedtrain.use.run_model import Labels, RunModel
from fedtrain.user_function import is_function_reference

logger = logging.getLogger("fedtrain.use")
TABLES: Final = (".csv", ".parquet")
_FOLDER_SOURCES: Final = ("idx", "images", "text")


@dataclass(frozen=True)
class NewRecords:
    """New records, prepared; in the order of the file.

    Attributes:
        features: `(n, *input_shape)`.
        left_out: Rows without a label, which are not among them.
        frame: The raw rows of a table; None for arrays.
    """

    features: NDArray[Any]
    left_out: int = 0
    frame: pl.DataFrame | None = None

    def __len__(self) -> int:
        return len(self.features)


def read_new_records(model: RunModel, path: Path) -> NewRecords:
    """Read records without their labels; see `read_labelled_records`."""
    if model.preparation.columns is not None:
        frame = _read_frame(path, model.preparation)
        return NewRecords(model.preparation.apply_features(frame), frame=frame)
    features, _ = _read_arrays(model, path, labelled=False)
    return NewRecords(_prepare_array(model.preparation, features))


def read_labelled_records(
    model: RunModel, path: Path, *, label: str | None = None
) -> tuple[NewRecords, Labels]:
    """Read records with their labels.

    Args:
        model: The run's model.
        path: A table's CSV or Parquet file; for arrays an NPZ file with `x` and `y`, or what the
            run's own `data.source` reads.
        label: Label column or expression of a table; by default the run's `data.label`.

    Returns:
        The records, and their labels `(n,)`, or of a task with targets those `(n, k)`.

    Raises:
        ConfigError: No label column is known.
        DataError: The file cannot be read, or does not fit the model.
    """
    preparation = model.preparation
    if preparation.columns is None:
        if label is not None:
            raise ConfigError(f"--label {label}: this model takes arrays, whose labels are 'y'")
        features, labels = _read_arrays(model, path, labelled=True)
        if labels is None:
            raise DataError(f"{path.name} has no labels; save them as array 'y'")
        return NewRecords(_prepare_array(preparation, features)), labels
    frame = _read_frame(path, model.preparation)
    if has_targets(model.config):
        return _read_targets(model, frame, label)
    return _read_classes(model, frame, path=path, label=label)


def _read_targets(
    model: RunModel, frame: pl.DataFrame, label: str | None
) -> tuple[NewRecords, Labels]:
    """Return the rows that have every target, and those."""
    data, preparation = model.config.data, model.preparation
    names = (label,) if label is not None else data.targets or (data.label or "",)
    for name in names:
        _verify_column(name, frame)
    raw = clean_frame(frame.select(names), data.missing)
    numbers = raw.select(pl.all().cast(pl.Float64, strict=False))
    keep = numbers.select(pl.all_horizontal(pl.all().is_not_null())).to_series()
    kept, left_out = frame.filter(keep), int(len(keep) - keep.sum())
    what = f"columns {', '.join(names)}"
    targets = read_targets(numbers.filter(keep).to_numpy(), model.config, what)
    if targets.shape[1] != len(preparation.label_names) or not len(targets):
        raise DataError(
            f"{what}: {len(targets)} rows with {targets.shape[1]} targets, the model has"
            f" {len(preparation.label_names)}; check --label"
        )
    records = NewRecords(preparation.apply_features(kept), left_out, kept)
    return records, preparation.apply_targets(targets)


def _read_classes(
    model: RunModel, frame: pl.DataFrame, *, path: Path, label: str | None
) -> tuple[NewRecords, Labels]:
    preparation = model.preparation
    labels = _read_labels(model.config, frame, label)
    keep = labels.is_not_null()
    if not keep.any():
        raise DataError(f"{path.name}: label column {labels.name!r} has no value in any row")
    kept, left_out = frame.filter(keep), int(len(keep) - keep.sum())
    ids = _encode_labels(labels.filter(keep), preparation)
    return NewRecords(preparation.apply_features(kept), left_out, kept), ids


def name_inputs(preparation: Preparation) -> list[tuple[str, list[int]]]:
    """Return what of a flattened prepared record belongs to one raw value.

    Returns:
        A name and places for each column of a table; for each feature of an array, or each pixel
        of an image over all of its channels.
    """
    groups: list[tuple[str, list[int]]] = []
    if preparation.columns is not None:
        start = 0
        for column in preparation.columns:
            width = 1
            if not isinstance(column, NumericColumn):
                width = len(column.categories) + column.marks_missing
            groups.append((column.name, list(range(start, start + width))))
            start += width
        return groups
    shape = preparation.input_shape
    channels = shape[0] if len(shape) == 3 else 1
    places = shape[1:] if len(shape) == 3 else shape
    size = int(np.prod(places))
    for index in range(size):
        name = ",".join(str(int(i)) for i in np.unravel_index(index, places))
        groups.append((name, [channel * size + index for channel in range(channels)]))
    return groups


def _read_frame(path: Path, preparation: Preparation) -> pl.DataFrame:
    """Read a table, and say which of the model's columns it lacks.

    Raises:
        DataError: It is no table, or has no column of the model.
    """
    if path.suffix not in TABLES or path.is_dir():
        raise DataError(f"{path}: this model takes a table; give one .csv or .parquet file")
    frame = read_table(path)
    names = [column.name for column in preparation.columns or ()]
    lacking = [name for name in names if name not in frame.columns]
    if lacking and len(lacking) == len(names):
        raise DataError(f"{path.name} has no column of the model; it takes {', '.join(names[:20])}")
    others = [name for name in frame.columns if name not in names]
    for name in lacking:
        near = difflib.get_close_matches(name, others, n=1, cutoff=0.6)
        hint = f" similar={near[0]!r}" if near else ""
        logger.warning("event=column_counts_as_missing column=%r%s", name, hint)
    return frame


def _read_arrays(model: RunModel, path: Path, *, labelled: bool) -> tuple[Features, Labels | None]:
    """Read an NPZ file, or what the run's own source reads."""
    config = model.config
    if path.suffix == ".npz":
        arrays = read_npz(path)
        if "x" not in arrays:
            raise DataError(f"{path.name} has no array 'x'; save the records with numpy.savez")
        if not labelled or "y" not in arrays:
            return arrays["x"], None
        labels, targets = read_labels(arrays["x"], arrays["y"], config, name=path.name)
        return arrays["x"], _apply(model.preparation, labels, targets)
    reads = config.data.source in _FOLDER_SOURCES or config.data.task == "forecasting"
    if not reads and not is_function_reference(config.data.source.removeprefix("sklearn:")):
        raise DataError(
            f"{path}: this model takes arrays; give an .npz file with x (records), and y (labels)"
            " where they are needed"
        )
    data = config.data.model_copy(update={"path": str(path)})
    records = load_records(config.model_copy(update={"data": data}))
    return records.features, _apply(model.preparation, records.labels, records.targets)


def _apply(
    preparation: Preparation, labels: Category, targets: NDArray[np.float32] | None
) -> Labels:
    return (
        preparation.apply_labels(labels) if targets is None else preparation.apply_targets(targets)
    )


def _prepare_array(preparation: Preparation, features: Features) -> NDArray[Any]:
    if isinstance(features, np.ndarray) and features.dtype.kind not in "fiub":
        raise DataError(f"records have dtype {features.dtype}; convert them to numbers")
    return preparation.apply_features(features)


def _read_labels(config: Config, frame: pl.DataFrame, label: str | None) -> pl.Series:
    """Return the label of each row: a class, or the outcome of an expression."""
    text = label or config.data.label
    if text is None:
        raise ConfigError(
            f"the run's data.source = {config.data.source!r} names no label column; give --label"
        )
    expression = parse_expression(text)
    column = expression.column if expression else text
    _verify_column(column, frame)
    values = clean_frame(frame.select(column), config.data.missing).to_series()
    return values if expression is None else compute_label(values, expression)


def _verify_column(column: str, frame: pl.DataFrame) -> None:
    if column not in frame.columns:
        raise DataError(
            f"there is no label column {column!r}; {suggest_name(column, frame.columns)}"
        )


def _encode_labels(labels: pl.Series, preparation: Preparation) -> NDArray[np.int64]:
    if labels.dtype == pl.Boolean and len(preparation.label_names) == 2:
        return labels.cast(pl.Int64).to_numpy(writable=True)
    return preparation.apply_labels(encode_categories(labels))

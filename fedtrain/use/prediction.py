"""What a model says of new records, as a table in the order of the file."""

from pathlib import Path
from typing import Final

import polars as pl

from fedtrain.errors import ConfigError, DataError
from fedtrain.use.answers import compute_answers
from fedtrain.use.new_records import read_new_records
from fedtrain.use.run_model import RunModel

SUFFIXES: Final = (".csv", ".parquet")


def predict(model: RunModel, path: Path, *, keep: tuple[str, ...] = ()) -> pl.DataFrame:
    """Predict what a model was trained for, of each record of a file.

    Args:
        model: The run's model.
        path: See `read_new_records`.
        keep: Columns of the file's table to carry over, such as an identifier.

    Returns:
        A row for each record, in order: the kept columns, and those of `compute_answers`.

    Raises:
        DataError: The file cannot be read or does not fit, or a column to keep is not there.
    """
    records = read_new_records(model, path)
    predicted = pl.DataFrame(compute_answers(model, records.features))
    if not keep:
        return predicted
    frame = pl.DataFrame() if records.frame is None else records.frame
    for name in keep:
        if name not in frame.columns:
            raise DataError(f"--keep {name}: {path.name} has no such column")
        if name in predicted.columns:
            raise DataError(f"--keep {name}: the predictions have a column of that name")
    return pl.concat([frame.select(keep), predicted], how="horizontal")


def write_predictions(predictions: pl.DataFrame, path: Path) -> None:
    """Write a table as CSV or Parquet, all of it or nothing; an older file is replaced.

    Raises:
        ConfigError: The name ends in neither, or the file cannot be written.
    """
    verify_suffix(path)
    partial = path.with_name(f"{path.name}.partial")
    try:
        if path.suffix == ".csv":
            predictions.write_csv(partial)
        else:
            predictions.write_parquet(partial)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ConfigError(f"--out {path}: cannot be written ({error.strerror or error})") from error


def verify_suffix(path: Path) -> None:
    """Refuse a name that says neither CSV nor Parquet."""
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"--out {path}: give a name that ends in {' or '.join(SUFFIXES)}")

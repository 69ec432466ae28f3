"""Where records come from: `data.source` and `data.path`."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from fedtrain.config import Config
from fedtrain.data.array_files import load_idx, load_npz
from fedtrain.data.columns import Category, Numeric, Table
from fedtrain.data.frames import suggest_name
from fedtrain.data.generated import generate_graphs, generate_many_ratings, generate_ratings
from fedtrain.data.generated_tasks import generate_conditions, generate_loads
from fedtrain.data.image_folder import load_image_folder
from fedtrain.data.public import PublicConstants
from fedtrain.data.records import Records
from fedtrain.data.series import build_windows
from fedtrain.data.speeches import load_speeches
from fedtrain.data.table_files import load_table_files
from fedtrain.data.targets import label_alike
from fedtrain.data.user_records import load_from_function
from fedtrain.errors import ConfigError, DataError

LOADS: Final = "generated:loads"  # a series a site, of which the config says what a record is
_FOLDERS: Final = ("idx", "images")
_FILES: Final = ("npz", "text")
_TABLES: Final = ("csv", "parquet")
_TABLE_KEYS: Final = (
    "label",
    "site_column",
    "person_column",
    "categorical",
    "categories",
    "zero_is_missing",
)


def load_records(config: Config, *, strict: bool = True) -> Records:
    """Read every record that `data.source` and `data.path` name.

    Args:
        config: The run's config.
        strict: Refuse a table for a cell that cannot be read; else its row is left out.

    Raises:
        ConfigError: The source is unknown, or a key that it needs is missing.
        DataError: The data cannot be read or used.
    """
    data = config.data
    _verify_keys(config)
    if data.source in (*_OWN, LOADS):
        if data.path is not None:
            raise ConfigError(
                f"data.path = {data.path!r} has no effect with data.source = {data.source!r};"
                " remove it"
            )
        if data.source == LOADS:
            return build_windows(generate_loads(), config)
        return _OWN[data.source]()
    if data.source in (*_FOLDERS, *_FILES, *_TABLES):
        return _load_files(config, _resolve_path(data.source, data.path), strict=strict)
    if is_own_code(data.source):
        return load_from_function(data.source, data.path, config=config)
    known = (*_OWN, LOADS, *_TABLES, *_FOLDERS, *_FILES)
    raise ConfigError(
        f"data.source = {data.source!r} is unknown; {suggest_name(data.source, known)}"
    )


def is_own_code(source: str) -> bool:
    """Return whether `data.source` names a function of the user's own."""
    return ":" in source and not source.startswith(("sklearn:", "generated:"))


def _load_files(config: Config, path: Path, *, strict: bool) -> Records:
    data = config.data
    match data.source:
        case "idx":
            return load_idx(path)
        case "images":
            protected = config.privacy.covers_records
            return load_image_folder(path, data.image_size, protected=protected, strict=strict)
        case "npz":
            return load_npz(path, config=config, strict=strict)
        case "text":
            return load_speeches(path, data.sequence_length, vocabulary=data.vocabulary)
        case _:
            return load_table_files(config, path, strict=strict)


def _verify_keys(config: Config) -> None:
    """Refuse keys that the source does not read."""
    data = config.data
    unread: tuple[str, ...] = () if data.source in _TABLES else _TABLE_KEYS
    if data.task in ("regression", "multi_label") and data.source not in _TABLES:
        unread = tuple(key for key in unread if key != "label")  # it names the output
    if data.source != "images":
        unread = (*unread, "image_size")
    if data.source != "text":
        unread = (*unread, "vocabulary")
    for key in unread:
        if getattr(data, key):
            raise ConfigError(
                f"data.{key} has no effect with data.source = {data.source!r}; remove it"
            )


def _resolve_path(source: str, text: str | None) -> Path:
    if text is None:
        raise ConfigError(
            f"data.path is missing and data.source = {source!r} needs it; name the file or folder"
        )
    path = Path(text).expanduser()
    if not path.exists():
        raise DataError(f"data.path = {text!r} does not exist; check it")
    if source in _FOLDERS and not path.is_dir():
        raise DataError(f"data.path = {text!r} is a file, data.source = {source!r} needs a folder")
    if source in _FILES and path.is_dir():
        raise DataError(f"data.path = {text!r} is a folder, data.source = {source!r} needs a file")
    return path


def _load_digits() -> Records:
    from sklearn.datasets import load_digits  # 0.9 s and 150 MiB, which only this source needs

    digits = load_digits()
    names = tuple(str(name) for name in range(10))
    return Records(
        features=digits.images.astype(np.uint8)[:, None],
        labels=Category(digits.target.astype(np.int32), names),
        public=PublicConstants(input_shape=(1, 8, 8), value_range=(0.0, 16.0), label_names=names),
    )


def _load_breast_cancer() -> Records:
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    names = tuple(str(name) for name in data.feature_names)
    columns = {name: Numeric(data.data[:, i].copy()) for i, name in enumerate(names)}
    classes = tuple(str(name) for name in data.target_names)
    return Records(
        features=Table(columns, len(data.target)),
        labels=Category(data.target.astype(np.int32), classes),
        public=PublicConstants(columns=names, label_names=classes),
    )


def _load_diabetes() -> Records:
    from sklearn.datasets import load_diabetes

    data = load_diabetes(scaled=False)
    names = tuple(str(name) for name in data.feature_names)
    columns = {name: Numeric(data.data[:, i].copy()) for i, name in enumerate(names)}
    outputs = ("progression",)
    return Records(
        features=Table(columns, len(data.target)),
        labels=label_alike(outputs, len(data.target)),
        public=PublicConstants(columns=names, label_names=outputs),
        targets=data.target.astype(np.float32)[:, None],
    )


_OWN: Final[dict[str, Callable[[], Records]]] = {
    "sklearn:digits": _load_digits,
    "sklearn:breast_cancer": _load_breast_cancer,
    "sklearn:diabetes": _load_diabetes,
    "generated:graphs": generate_graphs,
    "generated:ratings": generate_ratings,
    "generated:many_ratings": generate_many_ratings,
    "generated:conditions": generate_conditions,
}

"""IDX (the format of MNIST) and NPZ files.

Shapes: n records, h x w pixels.
"""

import gzip
import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedtrain.config import Config
from fedtrain.data.columns import Category, encode_values
from fedtrain.data.persons import digest_persons, read_persons
from fedtrain.data.public import PublicConstants
from fedtrain.data.records import Records, check_arrays
from fedtrain.data.targets import has_targets, label_alike, name_outputs, read_targets
from fedtrain.errors import DataError

PIXEL_RANGE: Final = (0.0, 255.0)
_UNSIGNED_BYTE: Final = 0x08


def load_idx(path: Path) -> Records:
    """Read the four canonical files of a folder: train and t10k, images and labels, .gz or not.

    Returns:
        Features uint8 `(n, 1, h, w)`; the t10k files, where both are there, as central test set.

    Raises:
        DataError: A file is missing, cut short, or not IDX.
    """
    train = _load_idx_pair(path, "train")
    if train is None:
        raise DataError(
            f"{path}: train-images-idx3-ubyte and train-labels-idx1-ubyte (.gz or not) are not"
            " both there; check data.path"
        )
    features, labels = train
    return Records(
        features=features,
        labels=labels,
        public=PublicConstants(input_shape=features.shape[1:], value_range=PIXEL_RANGE),
        central=_load_idx_pair(path, "t10k"),
    )


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read one IDX file of unsigned bytes, `.gz` or not.

    Raises:
        DataError: The file is not readable, or its size is not what its header says.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: cannot be read ({error}); fetch the file again") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _UNSIGNED_BYTE:
        raise DataError(f"{path.name} is not an IDX file of unsigned bytes; fetch it again")
    dimensions = content[3]
    start = 4 + 4 * dimensions
    shape = tuple(np.frombuffer(content[4:start], dtype=">u4").astype(int).tolist())
    size = int(np.prod(shape, dtype=object))
    if len(shape) != dimensions or len(content) - start != size:
        raise DataError(
            f"{path.name} holds {len(content) - start} values, its header says {size}; it is cut"
            " short or damaged, fetch it again"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def load_npz(path: Path, *, config: Config | None = None, strict: bool = True) -> Records:
    """Read arrays `x` and `y`, and where there are any `site`, `person`, `x_test` and `y_test`.

    Args:
        path: The file.
        config: Says which task the records are for; by default `y` holds classes.
        strict: See `read_labels`.

    Raises:
        DataError: The file or an array is missing or not usable.
    """
    arrays = read_npz(path)
    for name in ("x", "y"):
        if name not in arrays:
            raise DataError(
                f"{path.name} has no array {name!r}, only {', '.join(sorted(arrays)) or 'none'};"
                " save x (records) and y (labels)"
            )
    labels, targets = read_labels(
        arrays["x"], arrays["y"], config or Config(), name=path.name, strict=strict
    )
    sites = None
    if "site" in arrays:
        if arrays["site"].shape != arrays["y"].shape[:1]:
            raise DataError(f"{path.name}: 'site' and 'y' differ in length; give one a record")
        sites = _encode(arrays["site"], f"{path.name}: 'site'")
    persons = digests = None
    if "person" in arrays:
        persons = read_persons(arrays["person"], len(labels), f"{path.name}: 'person'")
        digests = digest_persons(arrays["person"])
    central = None
    if "x_test" in arrays and "y_test" in arrays and targets is None:
        test = arrays["x_test"], arrays["y_test"]
        central = test[0], encode_labels(*test, f"{path.name} (test)")
        if test[0].shape[1:] != arrays["x"].shape[1:]:
            raise DataError(f"{path.name}: x_test has another shape than x; give both the same")
    names = None if targets is None else labels.names
    public = PublicConstants(input_shape=arrays["x"].shape[1:], label_names=names)
    return Records(arrays["x"], labels, public, sites, central, persons, digests, targets)


def read_labels(
    features: NDArray[Any],
    values: NDArray[Any],
    config: Config,
    *,
    name: str,
    strict: bool = True,
) -> tuple[Category, NDArray[np.float32] | None]:
    """Check two arrays and return the labels' classes, or the targets where the task has some.

    Args:
        features: Records.
        values: One label or row of targets a record.
        config: Says which task they are for.
        name: Where they are from, for a message.
        strict: Refuse a target that cannot be used; else it is NaN, and its record for others to
            leave out.

    Raises:
        DataError: They are not records and labels, or a label or target is not usable.
    """
    if not has_targets(config):
        return encode_labels(features, values, name), None
    targets = read_targets(values, config, name, strict=strict)
    check_arrays(features, targets[:, 0], name)
    return label_alike(name_outputs(config, targets.shape[1]), len(targets)), targets


def encode_labels(features: NDArray[Any], labels: NDArray[Any], name: str) -> Category:
    """Check two arrays and return the labels' classes.

    Raises:
        DataError: They are not records and labels, or a label is no class.
    """
    check_arrays(features, labels, name)
    return _encode(labels, f"{name}: labels")


def _encode(values: NDArray[Any], what: str) -> Category:
    try:
        return encode_values(values)
    except (ValueError, TypeError) as error:
        raise DataError(f"{what} must be whole numbers or texts, without a gap") from error


def _load_idx_pair(path: Path, part: str) -> tuple[NDArray[np.uint8], Category] | None:
    images = _find_idx(path, f"{part}-images", 3)
    labels = _find_idx(path, f"{part}-labels", 1)
    if images is None or labels is None:
        return None
    features = read_idx(images)
    if features.ndim != 3:
        raise DataError(f"{images.name} has {features.ndim} dimensions, images need 3")
    features = features[:, None]
    return features, encode_labels(features, read_idx(labels), images.name)


def _find_idx(path: Path, stem: str, dimensions: int) -> Path | None:
    for name in (f"{stem}-idx{dimensions}-ubyte", f"{stem}.idx{dimensions}-ubyte"):
        for candidate in (path / name, path / f"{name}.gz"):
            if candidate.is_file():
                return candidate
    return None


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Read every array of an NPZ file.

    Raises:
        DataError: It cannot be read, or holds pickled objects.
    """
    try:
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise DataError(f"{path.name} holds one array; save x and y with numpy.savez")
            with file:
                return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read as npz ({error}); check data.path") from error

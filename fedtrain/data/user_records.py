"""Records from a function of the user's own, named `module:function`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtrain.config import Config
from fedtrain.data.array_files import read_labels
from fedtrain.data.columns import Category
from fedtrain.data.persons import digest_persons, read_persons
from fedtrain.data.public import PublicConstants
from fedtrain.data.records import Records, check_arrays
from fedtrain.data.series import build_windows
from fedtrain.errors import DataError
from fedtrain.user_function import call_function


def load_from_function(
    reference: str, path: str | None, *, config: Config | None = None
) -> Records:
    """Call the user's function and take what it returns as records.

    Args:
        reference: `module:function`; the module may lie in the current folder.
        path: `data.path`, passed on as the only argument where it is set.
        config: Says which task the records are for.

    Returns:
        The records of `(features, labels)` or `(features, labels, persons)`, or of a dict from site
        name to such a tuple. Persons are named alike at all sites. Where `data.task` asks for
        targets, they stand for labels; of a forecast, a dict from site name to a series.

    Raises:
        ConfigError: There is no such module or function, or it raises.
        DataError: It returned something else, or arrays that do not fit together.
    """
    config = config or Config()
    result = call_function(reference, "data.source", positional=() if path is None else (path,))
    if config.data.task == "forecasting":
        if not isinstance(result, dict):
            raise DataError(f"{reference}: return a dict from site name to a series of numbers")
        return build_windows({str(site): np.asarray(s) for site, s in result.items()}, config)
    if isinstance(result, dict):
        return _join_sites({str(n): part for n, part in result.items()}, reference, config=config)
    return _build_records(_read_arrays(result, reference), None, reference, config=config)


def _read_arrays(result: object, reference: str) -> tuple[NDArray[Any], ...]:
    if not isinstance(result, tuple) or len(result) not in (2, 3):
        raise DataError(
            f"{reference} returned {type(result).__name__}; return (features, labels) or (features,"
            " labels, persons), or a dict from site name to such a tuple"
        )
    return tuple(np.asarray(array) for array in result)


def _join_sites(sites: dict[str, object], reference: str, *, config: Config) -> Records:
    if not sites:
        raise DataError(f"{reference} returned no site; return at least one")
    parts = [_read_arrays(part, f"{reference} ({name})") for name, part in sites.items()]
    for name, part in zip(sites, parts, strict=True):
        check_arrays(part[0], part[1], f"{reference} ({name})")
        if part[0].shape[1:] != parts[0][0].shape[1:]:
            raise DataError(
                f"{reference} ({name}): records have shape {part[0].shape[1:]}, others"
                f" {parts[0][0].shape[1:]}; return one shape"
            )
        if len(part) != len(parts[0]):
            raise DataError(f"{reference} ({name}): persons at some sites only; return all or none")
        if len(part) == 3:
            read_persons(part[2], len(part[1]), f"{reference} ({name})")
    joined = tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    codes = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part[1]) for part in parts])
    return _build_records(joined, Category(codes, tuple(sites)), reference, config=config)


def _build_records(
    arrays: tuple[NDArray[Any], ...], sites: Category | None, reference: str, *, config: Config
) -> Records:
    features = arrays[0]
    labels, targets = read_labels(arrays[0], arrays[1], config, name=reference)
    persons = read_persons(arrays[2], len(labels), reference) if len(arrays) == 3 else None
    names = None if targets is None else labels.names
    public = PublicConstants(input_shape=features.shape[1:], label_names=names)
    digests = None if persons is None else digest_persons(arrays[2])
    return Records(
        features,
        labels,
        public,
        sites,
        persons=persons,
        person_digests=digests,
        targets=targets,
    )

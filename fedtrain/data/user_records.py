"""Records from a function of the user's own, named `module:function`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtrain.data.array_files import encode_labels
from fedtrain.data.columns import Category
from fedtrain.data.persons import digest_persons, read_persons
from fedtrain.data.public import PublicConstants
from fedtrain.data.records import Records, check_arrays
from fedtrain.errors import DataError
from fedtrain.user_function import call_function


def load_from_function(reference: str, path: str | None) -> Records:
    """Call the user's function and take what it returns as records.

    Args:
        reference: `module:function`; the module may lie in the current folder.
        path: `data.path`, passed on as the only argument where it is set.

    Returns:
        The records of `(features, labels)` or `(features, labels, persons)`, or of a dict from site
        name to such a tuple. Persons are named alike at all sites.

    Raises:
        ConfigError: There is no such module or function, or it raises.
        DataError: It returned something else, or arrays that do not fit together.
    """
    result = call_function(reference, "data.source", positional=() if path is None else (path,))
    if isinstance(result, dict):
        return _join_sites({str(name): part for name, part in result.items()}, reference)
    return _build_records(_read_arrays(result, reference), None, reference)


def _read_arrays(result: object, reference: str) -> tuple[NDArray[Any], ...]:
    if not isinstance(result, tuple) or len(result) not in (2, 3):
        raise DataError(
            f"{reference} returned {type(result).__name__}; return (features, labels) or (features,"
            " labels, persons), or a dict from site name to such a tuple"
        )
    return tuple(np.asarray(array) for array in result)


def _join_sites(sites: dict[str, object], reference: str) -> Records:
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
    return _build_records(joined, Category(codes, tuple(sites)), reference)


def _build_records(
    arrays: tuple[NDArray[Any], ...], sites: Category | None, reference: str
) -> Records:
    features, labels = arrays[0], encode_labels(arrays[0], arrays[1], reference)
    persons = read_persons(arrays[2], len(labels), reference) if len(arrays) == 3 else None
    public = PublicConstants(input_shape=features.shape[1:])
    digests = None if persons is None else digest_persons(arrays[2])
    return Records(features, labels, public, sites, persons=persons, person_digests=digests)

"""Records from a function of the user's own, named `module:function`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtrain.data.array_files import encode_labels
from fedtrain.data.columns import Category
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
        The records of `(features, labels)`, or of a dict from site name to such a pair.

    Raises:
        ConfigError: There is no such module or function, or it raises.
        DataError: It returned something else, or arrays that do not fit together.
    """
    result = call_function(reference, "data.source", positional=() if path is None else (path,))
    if isinstance(result, dict):
        return _join_sites({str(name): pair for name, pair in result.items()}, reference)
    features, labels = _read_pair(result, reference)
    public = PublicConstants(input_shape=features.shape[1:])
    return Records(features, encode_labels(features, labels, reference), public)


def _read_pair(result: object, reference: str) -> tuple[NDArray[Any], NDArray[Any]]:
    if not isinstance(result, tuple) or len(result) != 2:
        raise DataError(
            f"{reference} returned {type(result).__name__}; return (features, labels), or a dict"
            " from site name to such a pair"
        )
    return np.asarray(result[0]), np.asarray(result[1])


def _join_sites(sites: dict[str, object], reference: str) -> Records:
    if not sites:
        raise DataError(f"{reference} returned no site; return at least one")
    pairs = [_read_pair(pair, f"{reference} ({name})") for name, pair in sites.items()]
    for name, pair in zip(sites, pairs, strict=True):
        check_arrays(*pair, f"{reference} ({name})")
        if pair[0].shape[1:] != pairs[0][0].shape[1:]:
            raise DataError(
                f"{reference} ({name}): records have shape {pair[0].shape[1:]}, others"
                f" {pairs[0][0].shape[1:]}; return one shape"
            )
    features = np.concatenate([pair[0] for pair in pairs])
    labels = encode_labels(features, np.concatenate([pair[1] for pair in pairs]), reference)
    codes = np.repeat(np.arange(len(pairs), dtype=np.int32), [len(pair[1]) for pair in pairs])
    public = PublicConstants(input_shape=features.shape[1:])
    return Records(features, labels, public, Category(codes, tuple(sites)))

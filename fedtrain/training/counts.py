"""Counts that a site sent: whole numbers of records, or a refusal."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from fedtrain.errors import PeerError

LARGEST_COUNT: Final = 2.0**53  # float64 holds every integer up to here


def read_counts(
    values: Sequence[float], lengths: Sequence[int]
) -> tuple[float, npt.NDArray[np.int64]]:
    """Return the loss that sums begin with, and the counts that follow.

    Args:
        values: What a site sent.
        lengths: The lengths that it may have.

    Raises:
        PeerError: The length is another, the loss is not finite, or a count is none.
    """
    if len(values) not in lengths:
        raise PeerError(
            f"metric sums have {len(values)} numbers, this task's"
            f" {' or '.join(map(str, lengths))}; all sites must run the same config"
        )
    flat = np.asarray(values, np.float64)
    if not math.isfinite(flat[0]):
        raise PeerError(f"metric sums have a loss of {flat[0]}; a finite one is needed")
    return float(flat[0]), to_counts(flat[1:])


def to_counts(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return whole numbers of records; PeerError where a value is none."""
    if not (np.isfinite(values).all() and (values >= 0).all() and (values < LARGEST_COUNT).all()):
        raise PeerError("metric sums have a count below 0, above 2^53 or not finite; drop the site")
    counts = values.astype(np.int64)
    if not np.array_equal(counts, values):
        raise PeerError("metric sums have a fractional count; whole numbers of records are needed")
    return counts

"""Flower's SecAgg+ primitives on the same shapes.

They are a part of Flower's legacy package that has no other home: its modern API has no secure
aggregation. What is timed is what its client's mod and its server workflow do for one mask.
"""

import importlib.util
import time
from typing import Final

import numpy as np

_MODULE: Final = "flwr.common.secure_aggregation"
_RANGE: Final = 2**32
_REPEATS: Final = 2


def has_rival() -> bool:
    """Return whether the installed Flower has the primitives."""
    try:
        return importlib.util.find_spec(f"{_MODULE}.secaggplus_utils") is not None
    except ModuleNotFoundError:
        return False


def measure_mask(size: int) -> float:
    """Return the seconds that Flower takes to draw one mask of `size` numbers and to add it."""
    from flwr.common.secure_aggregation.ndarrays_arithmetic import parameters_addition
    from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

    total = [np.zeros(size, dtype=np.int64)]
    found = []
    for repeat in range(_REPEATS):
        start = time.perf_counter()
        mask = pseudo_rand_gen(repeat.to_bytes(32, "little"), _RANGE, [(size,)])
        total = parameters_addition(total, mask)
        found.append(time.perf_counter() - start)
    return min(found)


def measure_encoding(size: int) -> float:
    """Return the seconds that Flower takes to quantise an update of `size` numbers."""
    from flwr.common.secure_aggregation.quantization import quantize

    update = np.random.default_rng(0).uniform(-1, 1, size)
    start = time.perf_counter()
    quantize([update], 1.0, 2**22)
    return time.perf_counter() - start

"""Seeds of a simulation's reproducible draws, each derived for one purpose.

Only for draws that no guarantee rests on (start model, shuffling, cohorts of a simulation);
noise and Poisson sampling come from `fedtrain.privacy.generator`.
"""

import hashlib

import numpy as np
import torch


def derive_seed(seed: int, *labels: str | int) -> int:
    """Return a 63-bit seed for one purpose, e.g. `derive_seed(0, "cohort", 3)`.

    Distinct labels give unrelated seeds: SHA-256 over their unambiguous encoding.
    """
    text = repr((seed, *labels)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def make_torch_generator(seed: int, *labels: str | int) -> torch.Generator:
    """Return a torch generator on the CPU for one purpose; see `derive_seed`."""
    return torch.Generator().manual_seed(derive_seed(seed, *labels))


def make_numpy_generator(seed: int, *labels: str | int) -> np.random.Generator:
    """Return a numpy generator for one purpose; see `derive_seed`."""
    return np.random.default_rng(derive_seed(seed, *labels))

"""Which coordinates of an update are sent in a round, and which weights of a model are pruned.

Which coordinates are sent must not depend on anybody's data: a sum needs the same at all sites,
and a choice by size, such as the largest k, would show what a site's records moved. So they are
drawn, from what every site knows: rand-k rather than top-k.

Shapes: d parameters, s coordinates that are sent.

References:
    Konecny et al. 2016, "Federated learning: strategies for improving communication efficiency"
    (random masks). Zhu and Gupta 2017, "To prune, or not to prune" (the share over time).
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedtrain.config import Config, compute_digest
from fedtrain.params import Layout, Vector
from fedtrain.privacy.generator import SecureGenerator


def draw_kept(config: Config, *, size: int, round: int) -> NDArray[np.int64] | None:
    """Return which coordinates are sent in a round, ascending, `(s,)`; None where all are.

    Args:
        config: The resolved config; its digest is the seed, known to all.
        size: d.
        round: Counted from 1.

    Guarantees:
        * Uniform among the sets of s coordinates, but for a tie of two 53-bit draws; independent
          of every record; another in each round.
    """
    section = config.compression
    if section is None or section.keep_share is None:
        return None
    seed = int(compute_digest(config), 16)
    draws = SecureGenerator.from_seed(seed, "kept coordinates", round).draw_uniform(size)
    count = math.ceil(section.keep_share * size)
    return np.sort(np.argsort(draws, kind="stable")[:count])


def compute_prune_share(config: Config, round: int) -> float:
    """Return which share of the weights is zero after a round: it grows fast, then slowly."""
    section = config.compression
    if section is None or section.prune_share is None:
        return 0.0
    over = section.prune_rounds or math.ceil(config.federation.rounds / 2)
    return section.prune_share * (1 - (1 - min(1.0, round / over)) ** 3)


def prune(layout: Layout, vector: Vector, share: float) -> Vector:
    """Return a model `(d,)` without the smallest weights, all layers together, biases aside.

    The global model alone says which: under differential privacy that is post-processing.

    Args:
        layout: Of the model.
        vector: The model, `(d,)`.
        share: Of the weights that become zero.
    """
    pruned = vector.copy()
    weights = [part for part in layout.split(pruned).values() if part.ndim > 1]
    sizes = [np.abs(part).ravel() for part in weights]
    count = math.floor(share * sum(map(len, sizes)))
    if not count:
        return pruned
    flat = np.zeros(sum(map(len, sizes)), np.bool_)
    flat[np.argsort(np.concatenate(sizes), kind="stable")[:count]] = True
    _set_zero(weights, flat)
    return pruned


def _set_zero(weights: Sequence[Vector], chosen: NDArray[np.bool_]) -> None:
    """Set the chosen ones to zero, in place."""
    start = 0
    for part in weights:
        part[chosen[start : start + part.size].reshape(part.shape)] = 0
        start += part.size

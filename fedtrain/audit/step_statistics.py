"""Statistics of what the steps showed, each with a p-value under the claim.

Sentinels that are in no batch leave rows of noise alone: nothing of any record is in them. From
those come the noise's deviation, its shape and whether it repeats; from the sampler's draws the
rate and the variance of the batch size, which is zero where batches are shuffled.

Each p-value is valid: under the claim it is at most p with probability at most p (normality:
nearly; see there).

Shapes: T steps, k rows of noise.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, chi2, kstest, t

from fedtrain.audit.sentinels import Observed

NULL_DRAWS: Final = 4000


def compute_noise_p_value(noise: NDArray[np.float32], claimed: float) -> float:
    """Return the chance of noise as small as this, if it had the claimed deviation.

    Args:
        noise: `(T, k)`, in clips.
        claimed: Its deviation as claimed, above 0.

    Guarantees:
        * Exact for independent Gaussian noise. Noise that is larger than claimed is not refused.
    """
    squares = float(np.square(noise, dtype=np.float64).sum())
    return float(chi2.cdf(squares / claimed**2, noise.size))


def compute_normality_p_value(noise: NDArray[np.float32]) -> float:
    """Return the chance of a distribution as far from Gaussian as this (Kolmogorov, Smirnov).

    The deviation is the sample's own. The distance to a fitted distribution is smaller than to the
    true one, so that the p-value is too large rather than too small.
    """
    values = noise.astype(np.float64).ravel()
    spread = math.sqrt(float(np.square(values).mean()))
    return float(kstest(values / spread, "norm").pvalue) if spread else 0.0


def compute_repetition_p_value(noise: NDArray[np.float32]) -> float:
    """Return the chance of two steps' noise as alike as the most alike are, of all pairs.

    Args:
        noise: `(T, k)`, T at least 2, k at least 3.

    Guarantees:
        * At least the chance, for independent Gaussian noise: each correlation has Student's law,
          and the chances of all pairs are added up.
    """
    steps, rows = noise.shape
    if not noise.std(axis=1).all():
        return 0.0  # a step without noise
    alike: NDArray[np.float64] = np.abs(np.corrcoef(noise.astype(np.float64)))
    most = min(float(alike[np.triu_indices(steps, 1)].max()), 1 - 1e-12)
    ratio: float = most * math.sqrt((rows - 2) / (1 - most**2))
    chance: float = steps * (steps - 1) * float(t.sf(ratio, rows - 2))
    return min(1.0, chance)


def compute_rate_p_value(observed: Observed, rate: float) -> float:
    """Return the chance of as many draws, or as few, in all steps together (binomial, exact)."""
    trials = len(observed.batch_sizes) * observed.units
    if observed.asked != len(observed.batch_sizes):
        return 0.0  # batches came from elsewhere
    drawn = int(observed.batch_sizes.sum())
    side = min(binom.cdf(drawn, trials, rate), binom.sf(drawn - 1, trials, rate))
    return min(1.0, 2 * float(side))


def compute_variance_p_value(observed: Observed, rate: float, *, seed: int) -> float:
    """Return the chance of batch sizes that vary as little as this, or as much.

    Against `NULL_DRAWS` repetitions of independent binomial batch sizes: exact but for chance.
    """
    steps, mean = len(observed.batch_sizes), observed.units * rate
    generator = np.random.default_rng(seed)
    null = generator.binomial(observed.units, rate, (NULL_DRAWS, steps))
    spreads = np.square(null - mean).sum(axis=1)
    found = float(np.square(observed.batch_sizes - mean).sum())
    side = min(np.count_nonzero(spreads <= found), np.count_nonzero(spreads >= found))
    return min(1.0, 2 * (int(side) + 1) / (NULL_DRAWS + 1))

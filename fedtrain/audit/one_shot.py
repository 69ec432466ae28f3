"""The one-shot estimate of a site's epsilon: canary sites, beside directions that nobody sent.

A canary sends the same random direction whenever it is asked. Its cosine with what was released is
higher than that of a direction that nobody sent; how much higher, in units of both spreads, is an
epsilon. It is an estimate, good from an epsilon of about 3 on, and no bound: it may err both ways.

Shapes: k canaries, d parameters.

References:
    Andrew et al. 2023, "One-shot empirical privacy estimation for federated learning"
    (arXiv:2302.03098): cosines, Gaussian fits, epsilon between the two fits.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedtrain.errors import ConfigError
from fedtrain.privacy.generator import SecureGenerator

Floats = NDArray[np.float64]

MAX_EPSILON: Final = 200.0
MIN_CANARIES: Final = 20
_POINTS: Final = 60_001
_REACH: Final = 14.0  # standard deviations
_BISECTIONS: Final = 50


@dataclass(frozen=True)
class Fit:
    """A Gaussian fitted to cosines.

    Attributes:
        mean: Of the cosines.
        stddev: Of the cosines, above 0.
    """

    mean: float
    stddev: float


def draw_directions(count: int, size: int, *, seed: int, label: str) -> Floats:
    """Draw random directions of norm 1, `(count, size)`."""
    generator = SecureGenerator.from_seed(seed, "canary directions", label)
    drawn = generator.draw_normal((count, size), stddev=1.0).double().numpy()
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float64)


def compute_cosines(directions: Floats, released: Floats) -> Floats:
    """Return each direction's cosine with a released vector `(d,)`; 0 where that is zero."""
    norm = float(np.linalg.norm(released))
    if norm == 0:
        return np.zeros(len(directions))
    return np.asarray(directions @ released / norm, np.float64)


def fit_cosines(cosines: Floats) -> Fit:
    """Fit a Gaussian to cosines of at least `MIN_CANARIES` canaries.

    Raises:
        ConfigError: They are fewer.
    """
    if len(cosines) < MIN_CANARIES:
        raise ConfigError(
            f"{len(cosines)} canary sites say nothing of a spread; take {MIN_CANARIES} or more"
        )
    return Fit(float(cosines.mean()), max(float(cosines.std(ddof=1)), 1e-12))


def compute_epsilon_between(first: Fit, second: Fit, *, delta: float) -> float:
    """Return the smallest epsilon at which two Gaussians are (epsilon, delta)-indistinguishable.

    Args:
        first: One.
        second: The other; the larger of both directions is returned.
        delta: Above 0.

    Returns:
        0 to `MAX_EPSILON`, which stands for all beyond.
    """
    return max(_find_epsilon(first, second, delta), _find_epsilon(second, first, delta))


def _find_epsilon(first: Fit, second: Fit, delta: float) -> float:
    """Return epsilon of one direction, by the hockey-stick divergence on a grid."""
    scale = min(first.stddev, second.stddev)
    reach = _REACH * max(first.stddev, second.stddev)
    low, high = min(first.mean, second.mean) - reach, max(first.mean, second.mean) + reach
    x = np.linspace(low, high, _POINTS)
    p, q = _log_density(x, first, scale), _log_density(x, second, scale)
    step = (high - low) / (_POINTS - 1) / scale

    def compute_delta(epsilon: float) -> float:
        above = p > q + epsilon
        return float((np.exp(p[above]) - np.exp(q[above] + epsilon)).sum()) * step

    if compute_delta(0.0) <= delta:
        return 0.0
    bottom, top = 0.0, MAX_EPSILON
    for _ in range(_BISECTIONS):
        middle = (bottom + top) / 2
        bottom, top = (middle, top) if compute_delta(middle) > delta else (bottom, middle)
    return top


def _log_density(x: Floats, fit: Fit, scale: float) -> Floats:
    """Return the log density in units of `scale`."""
    z = (x - fit.mean) / fit.stddev
    density: Floats = -(z**2) / 2 - np.log(fit.stddev / scale) - np.log(2 * np.pi) / 2
    return density

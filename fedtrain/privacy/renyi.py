"""Rényi differential privacy of the Poisson-sampled Gaussian, by quadrature on our own orders.

The fast, independent upper bound beside the privacy loss distribution. The divergence is a
one-dimensional integral of analytic functions that decay like a Gaussian, which the trapezoidal
rule gives to rounding at every order, fractional or not; the usual series do not converge at
some orders that matter (high sample rates), or lose 1 % by dropping signs.

Legend: k orders.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

NeighbouringRelation = Literal["add_remove", "replace_one"]
# Small orders decide large epsilons, large orders small ones.
ORDERS: Final = (
    *(round(1 + i / 100, 2) for i in range(2, 10)),
    *(round(1 + i / 10, 1) for i in range(1, 100)),
    *(float(order) for order in range(11, 65)),
    *(float(round(64 * 1.25**i)) for i in range(1, 13)),
)
_MAX_POINTS: Final = 2**16


def compute_rdp(
    noise_multiplier: float,
    sample_rate: float,
    *,
    orders: Sequence[float] = ORDERS,
    neighbouring_relation: NeighbouringRelation = "add_remove",
) -> npt.NDArray[np.float64]:
    """Compute the Rényi divergence that one step costs at most.

    Args:
        noise_multiplier: Noise standard deviation / L2 sensitivity to one record, added or
            removed.
        sample_rate: Poisson probability of a record in the step, 0 to 1.
        orders: Orders above 1.
        neighbouring_relation: What neighbours are.

    Returns:
        (k,) one divergence an order; at `sample_rate` 0 zeros, at `noise_multiplier` 0 infinite.

    Guarantees:
        * At `sample_rate` 1 the values are the closed form of the Gaussian mechanism.
        * No value is above the closed form at `sample_rate` 1, none is negative or NaN.
        * Steps compose by addition: T steps cost T times the returned values.

    References:
        Mironov, Talwar, Zhang 2019 (arXiv:1908.10530): add_remove, Theorem 5 (the pair "with the
        record, without it" is the worse direction). Zhu, Dong, Wang 2022 (arXiv:2106.08567):
        replace_one, the dominating pair of a subsampled mechanism.
    """
    grid = np.asarray(orders, dtype=np.float64)
    if sample_rate == 0:
        return np.zeros_like(grid)
    if noise_multiplier == 0:
        return np.full_like(grid, math.inf)
    sensitivity = 1.0 if neighbouring_relation == "add_remove" else 2.0
    scaled = sensitivity / noise_multiplier
    unsampled = grid * (scaled * scaled / 2)
    if sample_rate == 1:
        return unsampled
    sampled = [
        _integrate_divergence(noise_multiplier, sample_rate, order, neighbouring_relation)
        for order in grid
    ]
    return np.clip(np.minimum(sampled, unsampled), 0.0, None)


@lru_cache(maxsize=1024)
def compute_rdp_curve(
    noise_multiplier: float, sample_rate: float, neighbouring_relation: NeighbouringRelation
) -> npt.NDArray[np.float64]:
    """Return `compute_rdp` at `ORDERS`, read-only and remembered."""
    curve = compute_rdp(noise_multiplier, sample_rate, neighbouring_relation=neighbouring_relation)
    curve.flags.writeable = False
    return curve


def convert_to_epsilon(
    rdp: npt.NDArray[np.float64], *, delta: float, orders: Sequence[float] = ORDERS
) -> float:
    """Convert Rényi divergences into the smallest epsilon that they prove at `delta`.

    Args:
        rdp: (k,) composed divergences.
        delta: Between 0 and 1, both excluded.
        orders: The k orders, above 1.

    Returns:
        The epsilon, at least 0, possibly infinite.

    References:
        Canonne, Kamath, Steinke 2020 (arXiv:2004.00010), Proposition 12; epsilon 0 by the
        divergence's bound on total variation (Bretagnolle-Huber).
    """
    grid = np.asarray(orders, dtype=np.float64)
    if np.any(-np.expm1(-rdp) <= delta * delta):
        return 0.0
    epsilons = rdp + np.log1p(-1 / grid) - (math.log(delta) + np.log(grid)) / (grid - 1)
    return max(0.0, float(np.min(epsilons)))


def _integrate_divergence(
    noise_multiplier: float, sample_rate: float, order: float, relation: NeighbouringRelation
) -> float:
    """Return log(integral of P^order Q^(1-order)) / (order - 1), infinite where too long a sum.

    P and Q are the densities of the worst pair, divided by N(0, noise_multiplier^2)'s.
    """
    variance = noise_multiplier * noise_multiplier
    # Poles of the integrand lie pi * variance off the real axis, and each of its terms is a
    # Gaussian of the noise's width: a step of a third of either leaves an error below 1e-15.
    step = min(noise_multiplier, variance) / 3
    low, high = -12 * noise_multiplier, 2 * order + 12 * noise_multiplier
    if not (high - low) < step * _MAX_POINTS:
        return math.inf  # an order left out: the bound from the others still holds
    points = np.arange(low, high, step)
    log_in, log_out = math.log(sample_rate), math.log1p(-sample_rate)
    log_p = np.logaddexp(log_out, log_in + (points - 0.5) / variance)
    log_terms = order * log_p - points * points / (2 * variance)
    if relation == "replace_one":
        log_terms += (1 - order) * np.logaddexp(log_out, log_in - (points + 0.5) / variance)
    peak = float(log_terms.max())
    log_sum = peak + math.log(float(np.exp(log_terms - peak).sum()))
    log_width = math.log(step) - math.log(noise_multiplier) - 0.5 * math.log(2 * math.pi)
    return (log_sum + log_width) / (order - 1)

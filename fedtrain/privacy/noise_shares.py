"""Noise that sites add in shares, inside a masked integer sum: how much, and what it costs.

A sum of discrete Gaussians is not one, but nearly. Write p for the law of the sum of n draws from
N_Z(0, s), and v for the difference that one site makes, an integer vector of L2 norm at most D.

Claim. For every order a > 1, in d dimensions, the Rényi divergence of p(. - v) from p is at most

    a D^2 / (2 n s) + min(d, D^2) T,   T = sum over k = 1 .. n-1 of log(M_k / m_k),
    M_k = 1 + 2 sum_j r_k^(j^2),  m_k = 1 + 2 sum_j (-1)^j r_k^(j^2),  r_k = exp(-2 pi^2 s k/(k+1)).

Proof, one coordinate. (1) p(x) = exp(-x^2 / 2ns) h(x) with max h / min h <= exp(T): the convolution
of exp(-y^2 / 2ks) h_k(y) with exp(-y^2 / 2s) is exp(-x^2 / 2(k+1)s) times a mean of h_k under the
weights exp(-(y - c)^2 (k+1) / 2ks), whose sum is, by Poisson summation, between m_k and M_k times
one constant for all centres c. (2) Hence p(x)/p(x + v) <= exp(T + (2xv + v^2) / 2ns), and the
divergence is 1/(a-1) log of the mean of the (a-1)-th power under x ~ p. A discrete Gaussian's
E exp(t x) is at most exp(t^2 s / 2), as shifting the centre of the weights by t s off the grid
only lessens their sum; so that of n of them is at most exp(t^2 n s / 2). With
t = (a-1) v / ns this gives T + v^2/2ns + (a-1) v^2/2ns. (3) Coordinates are independent; those with
v = 0 cost nothing, and an integer vector has at most |v|^2 others.

Second bound, for the many small T of large d: two laws whose log ratio has range T differ by at
most a T^2 / 8 in either direction (Hoeffding's lemma), and roots of concentrated divergences add
(Bun, Steinke 2016): p to its discrete Gaussian, the shift, and back give
a/2 (D / sqrt(n s) + sqrt(min(d, D^2)) T)^2. The smaller of the two is used.

Both have the form of Kairouz, Liu and Steinke's bounds with T in place of their tau =
10 sum_k exp(-2 pi^2 s k/(k+1)), which is 2.5 times as large.

Legend: k orders.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fedtrain.errors import ConfigError
from fedtrain.privacy.discrete_gaussian import MAX_VARIANCE
from fedtrain.privacy.events import DistributedDiscreteGaussian
from fedtrain.privacy.renyi import ORDERS, NeighbouringRelation

# What clipping in float32 may leave above the norm that was asked for.
_CLIP_SLACK: Final = 2.0**-20
# Far above what rounding leaves in the logarithm of a binomial probability of 10^6 sites.
_LOG_SLACK: Final = 1e-6
Curve = npt.NDArray[np.float64]


def compute_rounded_norm(max_norm: float, *, scale: float, dimension: int) -> float:
    """Bound the L2 norm of a clipped vector once it is scaled and rounded to integers.

    Rounding, to whichever neighbour, moves each coordinate by less than 1 and so the vector by
    less than sqrt(dimension).

    Args:
        max_norm: L2 norm that the vector is clipped to.
        scale: Integer units per unit of the vector.
        dimension: d, coordinates that are rounded.

    Returns:
        The bound, in integer units.

    Raises:
        ConfigError: An argument is not a finite positive number.

    Guarantees:
        * It holds for every vector of norm up to max_norm x (1 + 2^-20), which is what clipping
          in float32 may leave, and every outcome of the rounding; it is itself rounded up.
    """
    if not (0 < max_norm < math.inf and 0 < scale < math.inf and dimension >= 1):
        raise ConfigError(
            f"max_norm = {max_norm:g}, scale = {scale:g}, dimension = {dimension}: positive"
            " numbers are needed"
        )
    bound = max_norm * (1 + _CLIP_SLACK) * scale + math.sqrt(dimension)
    return bound * (1 + 2.0**-50)


def compute_share_variance(noise_multiplier: float, *, sensitivity: float, shares: int) -> int:
    """Return the variance that each of `shares` sites draws its noise with.

    Args:
        noise_multiplier: Wanted standard deviation of the sum / sensitivity.
        sensitivity: Largest L2 norm of a site's integer vector.
        shares: Fewest honest survivors.

    Returns:
        The smallest integer with shares x variance >= (noise_multiplier x sensitivity)^2, exactly.

    Raises:
        ConfigError: An argument is out of its range, or the variance above 2^62.
    """
    finite = math.isfinite(noise_multiplier) and math.isfinite(sensitivity)
    if not (finite and noise_multiplier >= 0 and sensitivity > 0 and shares >= 1):
        raise ConfigError(
            f"noise_multiplier = {noise_multiplier:g}, sensitivity = {sensitivity:g}, shares ="
            f" {shares}: at least 0, above 0 and at least 1 are needed"
        )
    stddev = Fraction(noise_multiplier) * Fraction(sensitivity)
    variance = math.ceil(stddev * stddev / shares)
    if variance > MAX_VARIANCE:
        raise ConfigError(
            f"noise_multiplier = {noise_multiplier:g} at sensitivity = {sensitivity:g} needs"
            " shares of variance above 2^62; lower the scale"
        )
    return variance


def compute_shares_rdp(
    event: DistributedDiscreteGaussian,
    *,
    orders: Sequence[float] = ORDERS,
    neighbouring_relation: NeighbouringRelation = "add_remove",
) -> Curve:
    """Compute the Rényi divergence that one step of the event costs at most.

    Args:
        event: The mechanism; its `steps` do not matter.
        orders: Orders above 1.
        neighbouring_relation: `add_remove`: a site's vector, or zeros in its place; `replace_one`:
            a site's vector or another, twice the sensitivity.

    Returns:
        (k,) one divergence an order; at `sample_rate` 0 zeros, at `share_variance` 0 infinite.

    Raises:
        ConfigError: `replace_one` with sampling, which has no bound here (but in `smoothing`).

    Guarantees:
        * No value is below the mechanism's own divergence, in either direction, for any vector
          of one site and any number of further sites.
        * No value is above the one at `sample_rate` 1; none is negative or NaN.
        * Steps compose by addition.

    References:
        Kairouz, Liu, Steinke 2021 (arXiv:2102.06387); the module derives what is used of it.
        Sampling at whole orders: Mironov, Talwar, Zhang 2019 (arXiv:1908.10530), the binomial
        expansion. That "with the site, without it" is the worse direction rests, there as here,
        on the reflection x -> v - x, which exchanges p(x) and p(x - v) as p is even. Between
        whole orders (a - 1) x divergence is convex in a, and is interpolated.
    """
    grid = np.asarray(orders, dtype=np.float64)
    if event.sample_rate == 0:
        return np.zeros_like(grid)
    if event.share_variance == 0:
        return np.full_like(grid, math.inf)
    if neighbouring_relation == "replace_one" and event.sample_rate < 1:
        raise ConfigError(
            f"sample_rate = {event.sample_rate:g} of sites has no replace_one cost at"
            f" share_variance = {event.share_variance}; raise the scale, or set"
            ' neighbouring_relation = "add_remove"'
        )
    factor = 1.0 if neighbouring_relation == "add_remove" else 2.0
    unsampled = _bound_shift(event, factor * event.sensitivity, grid)
    if event.sample_rate == 1:
        return unsampled
    return np.minimum(unsampled, _interpolate_sampled(event, grid))


def compute_log_ripple(share_variance: int, shares: int) -> float:
    """Return T, rounded up: M_k <= 1 + 2 r/(1 - r) and m_k >= 1 - 2 r, r being at most exp(-pi^2).

    Args:
        share_variance: s, at least 1.
        shares: n.
    """
    indices = np.arange(1, shares, dtype=np.float64)
    ripple = np.exp(-2 * math.pi**2 * share_variance * (indices / (indices + 1)))
    return float(np.sum(np.log1p(2 * ripple / (1 - ripple)) - np.log1p(-2 * ripple)))


def compute_small_cohort_delta(
    *, sites: int, site_sample_rate: float, minimum: int, rounds: int, epsilon: float
) -> float:
    """Bound what rounds that are void for too small a cohort add to delta.

    The analysis of sampling covers a mechanism that releases every round. One that releases
    nothing in a round that fewer than `minimum` sites were drawn for equals it except with
    probability p <= rounds x P[Binomial(sites, rate) < minimum], on neighbouring inputs alike, as
    the roster is public: what is (epsilon, delta) of the one is (epsilon, delta +
    (1 + exp(epsilon)) p) of the other. (From P'(S) <= P(S) + p <= exp(epsilon) Q(S) + delta + p
    and Q(S) <= Q'(S) + p.) It does not make up for a cohort whose size is seen, or noise that
    depends on it; see `DistributedDiscreteGaussian`.

    Args:
        sites: Sites of the public roster.
        site_sample_rate: Poisson probability of a site in a round.
        minimum: Fewest sites of a round that is released.
        rounds: Rounds of the run.
        epsilon: The epsilon that is claimed.

    Returns:
        (1 + exp(epsilon)) p, rounded up, at most 1.

    Raises:
        ConfigError: An argument is out of its range.
    """
    if sites < 0 or rounds < 0 or not 0 <= site_sample_rate <= 1 or not epsilon >= 0:
        raise ConfigError(
            f"sites = {sites}, rounds = {rounds}, site_sample_rate = {site_sample_rate:g}, epsilon"
            f" = {epsilon:g}: not negative, and the rate at most 1"
        )
    if rounds == 0 or minimum <= 0:
        return 0.0
    if minimum > sites or site_sample_rate == 0:
        return 1.0
    if site_sample_rate == 1:
        return 0.0
    log_tail = _sum_logs(_log_binomial(sites, np.arange(minimum), site_sample_rate))
    log_delta = log_tail + math.log(rounds) + float(np.logaddexp(0.0, epsilon)) + _LOG_SLACK
    return min(1.0, math.exp(min(log_delta, 0.0)))


def _bound_shift(event: DistributedDiscreteGaussian, sensitivity: float, orders: Curve) -> Curve:
    """Return the smaller of the module's two bounds at each order."""
    excess = compute_log_ripple(event.share_variance, event.shares)
    shift = sensitivity / math.sqrt(event.shares * event.share_variance)
    moved = min(float(event.dimension), sensitivity * sensitivity)
    additive = orders * (shift * shift / 2) + moved * excess
    reach = shift + math.sqrt(moved) * excess
    chained = orders * (reach * reach / 2)
    return np.minimum(additive, chained)


def _interpolate_sampled(event: DistributedDiscreteGaussian, orders: Curve) -> Curve:
    """Return the sampled divergence at any order from those at the whole orders beside it."""
    lower, upper = np.floor(orders), np.ceil(orders)
    whole = np.union1d(lower, upper)
    moments = {order: _compute_log_moment(event, int(order)) for order in whole.tolist()}
    low = np.array([moments[order] for order in lower.tolist()])
    high = np.array([moments[order] for order in upper.tolist()])
    # Not by differences: the moments may be infinite.
    part = orders - lower
    with np.errstate(invalid="ignore"):
        mixed = np.where(part == 0, low, (1 - part) * low + part * high)
    result: Curve = mixed / (orders - 1)
    return result


def _compute_log_moment(event: DistributedDiscreteGaussian, order: int) -> float:
    """Return (order - 1) x the sampled divergence, at a whole order.

    It is log(sum_k binomial(order, k) (1-q)^(order-k) q^k exp((k-1) divergence_k)); the binomial
    weights sum to 1, so that the logarithm of 1 + (what exceeds 1) keeps small values' digits.
    """
    if order == 1:
        return 0.0
    chosen = np.arange(2, order + 1, dtype=np.float64)
    gain = (chosen - 1) * _bound_shift(event, event.sensitivity, chosen)
    log_weights = _log_binomial(order, chosen, event.sample_rate)
    with np.errstate(divide="ignore"):  # a gain so small that it is 0 weighs nothing
        log_excess = gain + np.log(-np.expm1(-gain))
    return float(np.logaddexp(0.0, _sum_logs(log_weights + log_excess)))


def _log_binomial(n: int, chosen: npt.NDArray[Any], rate: float) -> Curve:
    """Return the logarithms of Binomial(n, rate)'s probabilities of (m,) outcomes, 0 < rate < 1."""
    logs = [math.lgamma(k + 1) + math.lgamma(n - k + 1) for k in chosen.tolist()]
    result: Curve = chosen * math.log(rate) + (n - chosen) * math.log1p(-rate)
    return result + (math.lgamma(n + 1) - np.array(logs))


def _sum_logs(logs: Curve) -> float:
    """Return the logarithm of the sum of exponentials."""
    return float(np.logaddexp.reduce(logs))

"""The smallest noise that keeps a whole run within a target epsilon."""

import math
from collections.abc import Callable, Sequence
from typing import Final

from fedtrain.errors import ConfigError
from fedtrain.privacy.accounting import compute_cost
from fedtrain.privacy.events import DistributedDiscreteGaussian, PoissonSampledGaussian
from fedtrain.privacy.noise_shares import compute_share_variance
from fedtrain.privacy.renyi import NeighbouringRelation

# The noise is a multiple of this; candidates are whole numbers of units.
_UNIT: Final = 1e-4
_SMALLEST: Final = 100
_LARGEST: Final = 100_000_000
_START: Final = 10_000
_NOISE_TOLERANCE: Final = 1e-3
_EPSILON_TOLERANCE: Final = 2e-3
_NEAR_ENOUGH: Final = 1e-3  # of the target: such an epsilon is taken without a smaller noise
_SECANTS: Final = 10  # evaluations after which the bracket is only halved

Point = tuple[int, float]  # noise in units, epsilon


def calibrate_noise_multiplier(
    *,
    target_epsilon: float,
    target_delta: float,
    sample_rate: float,
    steps: int,
    neighbouring_relation: NeighbouringRelation = "add_remove",
) -> float:
    """Find the smallest noise for which all steps together cost at most the target.

    Takes three to six evaluations of `compute_cost` where epsilon is ordinary, up to 40 where it
    is almost 0: 0.1 s, 2 s at 10^6 steps; done once for a run.

    Args:
        target_epsilon: Above 0, for the whole run.
        target_delta: Between 0 and 1.
        sample_rate: Poisson probability of a record in a step.
        steps: All steps of the run: rounds x local steps.
        neighbouring_relation: What neighbours are.

    Returns:
        The noise multiplier, with four decimals, 0.01 to 10,000.

    Raises:
        ConfigError: An argument out of its range, or noise of 10,000 still costs more.

    Guarantees:
        * `compute_cost` of the returned noise is at most `target_epsilon`: that very number was
          evaluated.
        * It is at least 0.995 x `target_epsilon`, or noise smaller by 0.0001 costs more than the
          target, or the noise returned is 0.01, below which nothing is looked for.
    """

    def evaluate(units: int) -> float:
        event = PoissonSampledGaussian(_to_multiplier(units), sample_rate, steps)
        relation = neighbouring_relation
        return compute_cost([event], delta=target_delta, neighbouring_relation=relation).epsilon

    guess = _guess(target_epsilon, target_delta, sample_rate, steps)
    run = f"{steps} steps at sample_rate = {sample_rate:g}"
    return _search(evaluate, target_epsilon, run, guess=guess)


def calibrate_site_noise(
    *,
    target_epsilon: float,
    target_delta: float,
    site_sample_rate: float,
    rounds: int,
    shares: int,
    dimension: int,
    sensitivity: float,
    neighbouring_relation: NeighbouringRelation = "add_remove",
) -> float:
    """Find the smallest noise of a masked sum that keeps all rounds together within the target.

    Takes up to a second or two (a dozen evaluations of `compute_cost`); coarse shares 20 ms.

    Args:
        target_epsilon: Above 0, for the whole run.
        target_delta: Between 0 and 1, without what void rounds add to it
            (`compute_small_cohort_delta`).
        site_sample_rate: Poisson probability of a site in a round; 1 claims nothing from sampling.
        rounds: All rounds of the run.
        shares: Fewest honest survivors of a released sum.
        dimension: Coordinates of the vector.
        sensitivity: Largest L2 norm of a site's integer vector (`compute_rounded_norm`).
        neighbouring_relation: What neighbours are.

    Returns:
        The noise multiplier, standard deviation of the sum's noise / sensitivity, with four
        decimals, 0.01 to 10,000; `compute_share_variance` makes a site's share of it.

    Raises:
        ConfigError: An argument out of its range, or noise of 10,000 still costs more.

    Guarantees:
        * `compute_cost` of the shares of the returned noise is at most `target_epsilon`: that very
          number was evaluated.
        * It is at least 0.995 x `target_epsilon`, or noise smaller by 0.0001 costs more than the
          target, or the noise returned is 0.01, below which nothing is looked for.
    """

    def evaluate(units: int) -> float:
        noise = _to_multiplier(units)
        variance = compute_share_variance(noise, sensitivity=sensitivity, shares=shares)
        event = DistributedDiscreteGaussian(
            sensitivity, variance, shares, dimension, site_sample_rate, rounds
        )
        relation = neighbouring_relation
        return compute_cost([event], delta=target_delta, neighbouring_relation=relation).epsilon

    guess = _guess(target_epsilon, target_delta, site_sample_rate, rounds)
    run = f"{rounds} rounds at site_sample_rate = {site_sample_rate:g}"
    return _search(evaluate, target_epsilon, run, guess=guess)


def _to_multiplier(units: int) -> float:
    return round(units * _UNIT, 4)


def _guess(target_epsilon: float, target_delta: float, sample_rate: float, steps: int) -> int:
    """Guess the noise from the central limit of many steps; only where the search starts."""
    if not (target_epsilon > 0 and 0 < target_delta < 1 and 0 < sample_rate <= 1 and steps >= 1):
        return _START
    tail = math.sqrt(-2 * math.log(target_delta))
    distance = math.sqrt(tail * tail + 2 * target_epsilon) - tail
    excess = distance * distance / sample_rate / sample_rate / steps
    if not 0 < excess < math.inf:
        return _START
    return min(max(round(1 / math.sqrt(math.log1p(excess)) / _UNIT), _SMALLEST), _LARGEST)


def _search(
    evaluate: Callable[[int], float], target_epsilon: float, run: str, *, guess: int
) -> float:
    """Return the smallest noise whose cost is at most the target; `evaluate` falls with noise."""
    if not target_epsilon > 0:
        raise ConfigError(f"target_epsilon = {target_epsilon:g} is not above 0; 1 to 8 is usual")
    low, high, units = _SMALLEST - 1, _LARGEST + 1, guess  # cost(low) > target >= cost(high)
    points: list[Point] = []
    best = math.inf
    while high - low > 1:
        epsilon = evaluate(units)
        points.append((units, epsilon))
        if epsilon <= target_epsilon:
            high, best = units, epsilon
        else:
            low = units
        if _is_near(low, high, best / target_epsilon):
            break
        units = _propose(points, low, high, target_epsilon)
    if high > _LARGEST:
        raise ConfigError(
            f"target_epsilon = {target_epsilon:g} is unreachable: {run} cost {points[-1][1]:.3g}"
            f" even with noise_multiplier = {_to_multiplier(_LARGEST):g}; raise"
            " target_epsilon, or sample less or less often"
        )
    return _to_multiplier(high)


def _is_near(low: int, high: int, share: float) -> bool:
    """Say whether `high`, which costs that share of the target, is close to the smallest noise."""
    if share > 1:
        return False  # nothing within the target is known yet
    if share >= 1 - _NEAR_ENOUGH:
        return True
    return share >= 1 - _EPSILON_TOLERANCE and high <= low * (1 + _NOISE_TOLERANCE)


def _propose(points: Sequence[Point], low: int, high: int, target: float) -> int:
    """Choose the next noise, strictly between `low` and `high`.

    By the line through the last two points in logarithms, a little within the target; where they
    tell nothing, by halving the bracket, or doubling or halving the noise if one end is not known.
    """
    last, epsilon = points[-1]
    limits = max(low, last // 4), min(high, last * 4)
    units = round(math.sqrt(max(limits[0], _SMALLEST) * min(limits[1], _LARGEST)))
    if 0 < epsilon < math.inf and len(points) < _SECANTS:
        slope = _estimate_slope(points[-2:])
        log_change = math.log(target * (1 - _NEAR_ENOUGH / 2) / epsilon) / slope
        units = round(last * math.exp(min(max(log_change, -math.log(4)), math.log(4))))
    return min(max(units, low + 1), high - 1)


def _estimate_slope(points: Sequence[Point]) -> float:
    """Return d log(epsilon) / d log(noise), which lies between -1 and -2 for most runs."""
    (first, cost), (second, other) = points[0], points[-1]
    if first == second or not 0 < cost < math.inf or cost == other:
        return -1.3
    slope = math.log(other / cost) / math.log(second / first)
    return min(max(slope, -20.0), -0.5)

"""The smallest noise that keeps a whole run within a target epsilon."""

import math
from collections.abc import Callable
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


def calibrate_noise_multiplier(
    *,
    target_epsilon: float,
    target_delta: float,
    sample_rate: float,
    steps: int,
    neighbouring_relation: NeighbouringRelation = "add_remove",
) -> float:
    """Find the smallest noise for which all steps together cost at most the target.

    Takes about a second (a dozen evaluations of `compute_cost`), half a minute at 10^6 steps; done
    once for a run.

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

    return _search(evaluate, target_epsilon, f"{steps} steps at sample_rate = {sample_rate:g}")


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

    Takes 10 to 100 ms.

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

    return _search(
        evaluate, target_epsilon, f"{rounds} rounds at site_sample_rate = {site_sample_rate:g}"
    )


def _to_multiplier(units: int) -> float:
    return round(units * _UNIT, 4)


def _search(evaluate: Callable[[int], float], target_epsilon: float, run: str) -> float:
    """Return the smallest noise whose cost is at most the target; `evaluate` falls with noise."""
    if not target_epsilon > 0:
        raise ConfigError(f"target_epsilon = {target_epsilon:g} is not above 0; 1 to 8 is usual")
    low, high = _START, _START
    while (epsilon := evaluate(high)) > target_epsilon:
        if high == _LARGEST:
            raise ConfigError(
                f"target_epsilon = {target_epsilon:g} is unreachable: {run} cost {epsilon:.3g}"
                f" even with noise_multiplier = {_to_multiplier(_LARGEST):g}; raise"
                " target_epsilon, or sample less or less often"
            )
        low, high = high, min(2 * high, _LARGEST)
    while low == high or evaluate(low) <= target_epsilon:
        if low == _SMALLEST:
            return _to_multiplier(_SMALLEST)
        low, high = max(low // 2, _SMALLEST), low
    return _to_multiplier(_narrow(evaluate, low, high, target_epsilon))


def _narrow(evaluate: Callable[[int], float], low: int, high: int, target: float) -> int:
    """Bisect in the logarithm; cost(low) > target >= cost(high) holds throughout.

    Stops where `high` is near the smallest noise in noise and in epsilon, or is the smallest.
    """
    cost = evaluate(high)
    while high - low > 1:
        if high <= low * (1 + _NOISE_TOLERANCE) and cost >= target * (1 - _EPSILON_TOLERANCE):
            break
        middle = min(max(round(math.sqrt(low * high)), low + 1), high - 1)
        candidate = evaluate(middle)
        if candidate <= target:
            high, cost = middle, candidate
        else:
            low = middle
    return high

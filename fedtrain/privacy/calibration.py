"""The smallest noise that keeps a whole run within a target epsilon."""

import math
from collections.abc import Callable
from typing import Final

from fedtrain.errors import ConfigError
from fedtrain.privacy.accounting import compute_cost
from fedtrain.privacy.events import PoissonSampledGaussian
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
    if not target_epsilon > 0:
        raise ConfigError(f"target_epsilon = {target_epsilon:g} is not above 0; 1 to 8 is usual")

    def evaluate(units: int) -> float:
        event = PoissonSampledGaussian(round(units * _UNIT, 4), sample_rate, steps)
        relation = neighbouring_relation
        return compute_cost([event], delta=target_delta, neighbouring_relation=relation).epsilon

    low, high = _START, _START
    while (epsilon := evaluate(high)) > target_epsilon:
        if high == _LARGEST:
            raise ConfigError(
                f"target_epsilon = {target_epsilon:g} is unreachable: {steps} steps at sample_rate"
                f" = {sample_rate:g} cost {epsilon:.3g} even with noise_multiplier ="
                f" {_LARGEST * _UNIT:g}; raise target_epsilon, or lower steps or sample_rate"
            )
        low, high = high, min(2 * high, _LARGEST)
    while low == high or evaluate(low) <= target_epsilon:
        if low == _SMALLEST:
            return round(_SMALLEST * _UNIT, 4)
        low, high = max(low // 2, _SMALLEST), low
    return round(_narrow(evaluate, low, high, target_epsilon) * _UNIT, 4)


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

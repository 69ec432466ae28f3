"""The largest number of steps that keeps a run within a target epsilon."""

import math
from typing import Final

from fedtrain.errors import ConfigError
from fedtrain.privacy.accounting import PrivacyCost, compute_cost
from fedtrain.privacy.events import MAX_STEPS, PoissonSampledGaussian
from fedtrain.privacy.renyi import NeighbouringRelation

_SECANTS: Final = 16  # evaluations after which the bracket is only halved


def compute_affordable_steps(
    *,
    target_epsilon: float,
    target_delta: float,
    noise_multiplier: float,
    sample_rate: float,
    neighbouring_relation: NeighbouringRelation = "add_remove",
) -> tuple[int, PrivacyCost]:
    """Find the largest number of steps whose cost together is at most the target.

    Takes five to fifteen evaluations of `compute_cost`, up to a few seconds.

    Args:
        target_epsilon: Above 0, for the whole run.
        target_delta: Between 0 and 1.
        noise_multiplier: Noise standard deviation / L2 sensitivity.
        sample_rate: Poisson probability of a record in a step, above 0.
        neighbouring_relation: What neighbours are.

    Returns:
        The steps, 0 where even one costs more, and what they cost.

    Raises:
        ConfigError: An argument out of its range, or no number of steps reaches the target.

    Guarantees:
        * `compute_cost` of the returned steps is at most the target, and of one step more above
          it: both numbers were evaluated.
    """
    if not target_epsilon > 0:
        raise ConfigError(f"target_epsilon = {target_epsilon:g} is not above 0; 1 to 8 is usual")

    def evaluate(steps: int) -> PrivacyCost:
        event = PoissonSampledGaussian(noise_multiplier, sample_rate, steps)
        relation = neighbouring_relation
        return compute_cost([event], delta=target_delta, neighbouring_relation=relation)

    low, high, steps = 0, MAX_STEPS + 1, 1  # cost(low) <= target < cost(high)
    affordable, points = evaluate(0), list[tuple[int, float]]()
    while high - low > 1:
        cost = evaluate(steps)
        points.append((steps, cost.epsilon))
        if cost.epsilon <= target_epsilon:
            low, affordable = steps, cost
        else:
            high = steps
        steps = _propose(points, low, high, target_epsilon)
    if low == MAX_STEPS:
        raise ConfigError(
            f"target_epsilon = {target_epsilon:g} is not reached by {MAX_STEPS:.0e} steps at"
            f" sample_rate = {sample_rate:g} and noise_multiplier = {noise_multiplier:g}; raise"
            " sample_rate or lower noise_multiplier"
        )
    return low, affordable


def _propose(points: list[tuple[int, float]], low: int, high: int, target: float) -> int:
    """Choose the next number of steps, strictly between `low` and `high`.

    By the line through the last two points in logarithms; where they tell nothing, by halving the
    bracket's logarithm, or by a factor of 8 while no end is known.
    """
    last, epsilon = points[-1]
    steps = math.isqrt(max(low, 1) * min(high, 64 * max(low, 1)))
    if len(points) < _SECANTS and 0 < epsilon < math.inf:
        before, other = points[-2] if len(points) > 1 else points[-1]
        slope = 0.6  # epsilon grows with the root of the steps, later faster
        if before != last and 0 < other < math.inf and other != epsilon:
            slope = math.log(epsilon / other) / math.log(last / before)
        growth = math.log(target / epsilon) / min(max(slope, 0.1), 3.0)
        steps = math.floor(last * math.exp(min(max(growth, -math.log(64)), math.log(64))))
    return min(max(steps, low + 1), high - 1)

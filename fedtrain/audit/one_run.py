"""Lower bounds of epsilon from one run: how often guesses of canaries' coins were right.

Each of m canaries is in the data or not, by a fair coin of its own. Whoever sees what was released
guesses c of the coins, a number fixed beforehand, and v guesses are right. Under a guarantee v is
small but for a chance that is computed here; a larger v contradicts the guarantee.

The attack need not be known to be good, nor the canaries to be independent of each other: the
bounds hold for every attack and every guarantee of the stated kind. They are lower bounds of a
leak; a small one says nothing.

Legend: m canaries, c guesses, v right ones; r and h are probabilities that a random canary is
guessed rightly or wrongly and that at least so many guesses of all are right.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtr, ndtri
from scipy.stats import binom

from fedtrain.errors import ConfigError
from fedtrain.privacy.trade_off import Profile, compute_gaussian_delta

MAX_EPSILON: Final = 64.0
_MAX_MU: Final = 16.0
_BISECTIONS: Final = 40
# Shares of the canaries that may be guessed.
SHARES: Final = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
Scores = NDArray[np.float64]
Coins = NDArray[np.bool_]
# The least probability of a wrong guess that allows one of a right guess.
LeastWrong = Callable[[float], float]


@dataclass(frozen=True)
class Guesses:
    """What became of the guesses.

    Attributes:
        canaries: m, each of which was in by a fair coin of its own.
        made: c, a number that no score and no coin had an influence on.
        correct: v.

    Raises:
        ConfigError: The numbers are not 0 <= v <= c <= m, or no guess was made.
    """

    canaries: int
    made: int
    correct: int

    def __post_init__(self) -> None:
        if not (0 <= self.correct <= self.made <= self.canaries and self.made >= 1):
            raise ConfigError(
                f"{self.correct} of {self.made} guesses right for {self.canaries} canaries: give at"
                " least one guess, and no more than canaries"
            )


@dataclass(frozen=True)
class GuessPlan:
    """How many coins are guessed, and which way; fixed before any score is seen.

    Attributes:
        highest: So many of the highest scores are guessed to be in.
        lowest: So many of the lowest to be out.

    Raises:
        ConfigError: A number is below 0, or both are 0.
    """

    highest: int
    lowest: int

    def __post_init__(self) -> None:
        if min(self.highest, self.lowest) < 0 or self.made < 1:
            raise ConfigError(
                f"{self.highest} guesses in and {self.lowest} out: give at least one, none below 0"
            )

    @property
    def made(self) -> int:
        """C."""
        return self.highest + self.lowest

    def guess(self, scores: Scores, included: Coins) -> Guesses:
        """Guess and look at what the coins said.

        Args:
            scores: `(m,)`, higher for canaries that seem to be in; not NaN.
            included: `(m,)`, the coins.

        Returns:
            What became of the guesses. Ties are in the order of the canaries, which the coins
            know nothing of.

        Raises:
            ConfigError: There are fewer canaries than guesses, or a score is NaN.
        """
        if self.made > len(scores) or bool(np.isnan(scores).any()):
            raise ConfigError(
                f"{self.made} guesses of {len(scores)} canaries: give no more than canaries, and"
                " scores that are numbers"
            )
        order = np.argsort(scores, kind="stable")
        right = np.count_nonzero(included[order[len(order) - self.highest :]])
        right += np.count_nonzero(~included[order[: self.lowest]])
        return Guesses(len(scores), self.made, int(right))


def compute_p_value(guesses: Guesses, *, epsilon: float, delta: float) -> float:
    """Bound the chance of so many right guesses under (epsilon, delta)-differential privacy.

    Args:
        guesses: What became of the guesses.
        epsilon: At least 0.
        delta: 0 to 1.

    Returns:
        P[B >= v] + 2 m delta max over i of (P[B >= v - i] - P[B >= v]) / i, at most 1, where B
        counts c coins that are right with probability exp(epsilon) / (1 + exp(epsilon)).

    Guarantees:
        * For every (epsilon, delta)-private mechanism (add or remove one) and every way of
          guessing, the chance of a value of at most p is at most p.
        * At delta 0 randomised response attains it: the bound is then its exact law.

    References:
        Steinke, Nasr, Jagielski 2023, Privacy Auditing with One (1) Training Run
        (arXiv:2305.08846), the theorem for approximate differential privacy.
    """
    if not (epsilon >= 0 and 0 <= delta <= 1):
        raise ConfigError(
            f"epsilon = {epsilon:g}, delta = {delta:g}: at least 0, and a number of 0 to 1"
        )
    least = guesses.correct - np.arange(guesses.correct + 1)
    tails = binom.sf(least - 1, guesses.made, expit(epsilon))
    if delta == 0 or guesses.correct == 0:
        return float(tails[0])
    steepest = float(np.max((tails[1:] - tails[0]) / np.arange(1, guesses.correct + 1)))
    return min(1.0, float(tails[0]) + 2 * guesses.canaries * delta * steepest)


def bound_epsilon(guesses: Guesses, *, delta: float, confidence: float) -> float:
    """Return the largest epsilon that the guesses contradict, at a delta; 0 for none.

    Args:
        guesses: What became of the guesses.
        delta: 0 to 1.
        confidence: Of the bound.

    Returns:
        The bound, found to 2^-30 and rounded down; at most `MAX_EPSILON`.

    Guarantees:
        * For an (epsilon, delta)-private mechanism the bound exceeds epsilon with probability at
          most 1 - confidence. See `compute_p_value`.
    """
    return _find_largest(
        lambda epsilon: compute_p_value(guesses, epsilon=epsilon, delta=delta) <= 1 - confidence,
        MAX_EPSILON,
    )


def contradicts(guesses: Guesses, least_wrong: LeastWrong, *, significance: float) -> bool:
    """Say whether so many right guesses have a chance below `significance` under a trade-off.

    If at least v of c guesses were right with probability `significance`, then a random canary is
    guessed rightly within that event with probability r >= significance v / m. Exchange the
    canary's coin: what was right is wrong, and one guess fewer is right; so the trade-off demands
    a probability h of wrong guesses, and hence of outcomes with v - 1 right ones; and so on down.
    In the end r + h, the probability that a random canary is guessed at all, must not be above
    c / m.

    Args:
        guesses: What became of the guesses.
        least_wrong: For a probability r the least h with r <= 1 - f(h), where f is the trade-off
            function of the guarantee, taken in both directions; rising and convex, 0 at 0.
        significance: Between 0 and 1.

    Returns:
        Whether the guarantee is contradicted.

    Guarantees:
        * Under every guarantee of that trade-off (add or remove one) and every way of guessing
          the answer is yes with probability at most `significance`.

    References:
        Mahloujifar, Melis, Chaudhuri 2024, Auditing f-Differential Privacy in One Run
        (arXiv:2410.22235), the recursion over the number of right guesses.
    """
    total, made, correct = guesses.canaries, guesses.made, guesses.correct
    right = significance * correct / total
    wrong = significance * (made - correct) / total
    for fewer in range(correct - 1, -1, -1):
        if right + wrong > made / total:
            return True
        demanded = least_wrong(right)
        if demanded <= wrong:
            return False  # a mixture of the outcomes so far is possible
        right += fewer / (made - fewer) * (demanded - wrong)
        wrong = demanded
    return right + wrong > made / total


def compute_claim_p_value(guesses: Guesses, profile: Profile) -> float:
    """Return the smallest significance at which the guesses contradict a privacy profile.

    Args:
        guesses: What became of the guesses.
        profile: Pairs of epsilon and delta that the mechanism is claimed to have.

    Returns:
        Rounded up, within 2^-30; 1 where no significance below 1 contradicts it.
    """
    least_wrong = make_least_wrong(profile)
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        if contradicts(guesses, least_wrong, significance=middle):
            high = middle
        else:
            low = middle
    return high


def bound_mu(guesses: Guesses, *, confidence: float) -> float:
    """Return the largest mu for which the guesses contradict mu-Gaussian privacy; 0 for none.

    The bound is one of the mechanism only if that is Gaussian, as the composition of many steps
    nearly is; other than `bound_epsilon`, which assumes nothing. At most 16.
    """

    def is_contradicted(mu: float) -> bool:
        return contradicts(
            guesses, lambda right: _compute_gaussian_wrong(right, mu), significance=1 - confidence
        )

    return _find_largest(is_contradicted, _MAX_MU)


def bound_gaussian_epsilon(guesses: Guesses, *, delta: float, confidence: float) -> float:
    """Return the epsilon, at a delta, of the Gaussian mechanism that `bound_mu` gives."""
    return compute_gaussian_epsilon(bound_mu(guesses, confidence=confidence), delta)


def compute_gaussian_epsilon(mu: float, delta: float) -> float:
    """Return the epsilon of a mu-GDP Gaussian at a delta, rounded down within 2^-30."""
    return _find_largest(lambda epsilon: compute_gaussian_delta(epsilon, mu) > delta, 1024.0)


def make_least_wrong(profile: Profile) -> LeastWrong:
    """Return `least_wrong` of `contradicts` for a profile: every point of it in both directions."""
    points = [(epsilon, delta) for epsilon, delta in profile.points if np.isfinite(epsilon)]
    epsilons = np.array([epsilon for epsilon, _ in points])
    deltas = np.array([delta for _, delta in points])
    shrunk, grown = np.exp(-epsilons), np.exp(np.minimum(epsilons, 700.0))

    def compute(right: float) -> float:
        if not len(points):
            return 0.0
        by_odds = float(np.max((right - deltas) * shrunk))
        by_rest = float(np.max(1 - deltas - (1 - right) * grown))
        return min(1.0, max(0.0, by_odds, by_rest))

    return compute


def choose_guesses(
    scores: Scores, included: Coins, *, canaries: int, confidence: float
) -> GuessPlan:
    """Return the plan that gives the largest bound, if scores are as in a simulation.

    A function of public numbers alone where the simulation is, so that it is registered before
    any real score is seen.

    Args:
        scores: `(n,)`, simulated.
        included: `(n,)`, the simulation's coins.
        canaries: m of the audit, at least 2.
        confidence: Of the bound.

    Returns:
        The best by the f-DP bound of a few shares of m, all guessed in, or half of them out.
    """
    best, most = GuessPlan(1, 1), -1.0
    for share in SHARES:
        made = max(2, round(canaries * share))
        for highest in (made, made - made // 2):
            plan = GuessPlan(highest, made - highest)
            expected = _expect(plan, scores, included, canaries=canaries)
            found = bound_mu(expected, confidence=confidence)
            if found > most:
                best, most = plan, found
    return best


def simulate_gaussian(mu: float, *, count: int = 20_000) -> tuple[Scores, Coins]:
    """Return simulated scores and coins of a Gaussian: N(0, 1), of those in N(mu, 1)."""
    generator = np.random.default_rng(0)
    included = generator.random(count) < 0.5
    return generator.normal(size=count) + mu * included, included


def _expect(plan: GuessPlan, scores: Scores, included: Coins, *, canaries: int) -> Guesses:
    """Return the guesses of an audit as they are expected by a simulation of another size."""
    ratio = len(scores) / canaries
    highest, lowest = (math.ceil(part * ratio) for part in (plan.highest, plan.lowest))
    simulated = GuessPlan(min(highest, len(scores) - lowest), lowest).guess(scores, included)
    return Guesses(canaries, plan.made, int(simulated.correct / simulated.made * plan.made))


def _compute_gaussian_wrong(right: float, mu: float) -> float:
    return float(ndtr(ndtri(min(1.0, right)) - mu))


def _find_largest(is_contradicted: Callable[[float], bool], limit: float) -> float:
    """Return the largest argument that is contradicted, all smaller ones being so; else 0."""
    if not is_contradicted(0.0):
        return 0.0
    low, high = 0.0, limit
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if is_contradicted(middle):
            low = middle
        else:
            high = middle
    return low

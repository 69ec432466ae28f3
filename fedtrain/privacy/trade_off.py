"""A guarantee in other terms: its whole privacy profile, the best attack, and Gaussian mu.

One (epsilon, delta) is one point of a mechanism's profile. Every point bounds every attack, so that
all of them together bound it more tightly: the trade-off curve of f-differential privacy.

Legend: FPR the share of non-members who are accused, TPR the share of members who are found.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from fedtrain.errors import ConfigError
from fedtrain.privacy.accounting import compute_cost
from fedtrain.privacy.attacker import bound_true_positive_rate
from fedtrain.privacy.events import Event
from fedtrain.privacy.renyi import NeighbouringRelation

# Dense where attacks of a few per cent are decided, and down to where no attack notices.
DELTAS: Final = (
    *(10.0**-exponent for exponent in range(10, 3, -1)),
    *(1e-3, 3e-3, 1e-2, 2e-2, 3e-2, 5e-2, 7e-2),
    *(tenth / 20 for tenth in range(2, 20)),
    *(0.97, 0.99),
)
_MAX_MU: Final = 100.0
_BISECTIONS: Final = 60
_REFINEMENTS: Final = 8


@dataclass(frozen=True)
class Profile:
    """Pairs of epsilon and delta that all hold for one mechanism.

    Attributes:
        points: (epsilon, delta) by rising delta; epsilons are at least 0, possibly infinite.

    Guarantees:
        * No attack has a higher TPR at an FPR than `bound_true_positive_rate`, and none a larger
          advantage than `bound_advantage`, whatever it knows besides; points left out only loosen
          both.
    """

    points: tuple[tuple[float, float], ...]

    def bound_true_positive_rate(self, false_positive_rate: float) -> float:
        """Bound the share of members that any attack finds; see `fedtrain.privacy.attacker`."""
        return min(
            bound_true_positive_rate(epsilon, delta, false_positive_rate=false_positive_rate)
            for epsilon, delta in self.points
        )

    def bound_advantage(self) -> float:
        """Bound TPR - FPR over all attacks: the total variation between the neighbours.

        References:
            Kairouz, Oh, Viswanath 2015: (epsilon, delta) bounds it by
            (exp(epsilon) - 1 + 2 delta) / (exp(epsilon) + 1).
        """
        return min(_bound_advantage(epsilon, delta) for epsilon, delta in self.points)

    def fit_gaussian(self, least_delta: float) -> float:
        """Return the smallest mu whose Gaussian profile lies above every point of the profile.

        Of points with a smaller delta nothing is said: a Poisson-sampled mechanism's far tail is
        that of the unsampled one, which no attack that can be tried sees.

        Args:
            least_delta: Smallest delta that counts.

        Returns:
            mu, infinite where the epsilon of a point is, or above 100.

        References:
            Dong, Roth, Su 2022: a mechanism is mu-GDP if telling its neighbours apart is no
            easier than telling N(0, 1) from N(mu, 1); Balle, Wang 2018 for that profile.
        """
        counted = [p for p in self.points if p[1] >= least_delta or p[0] == 0]
        return max((find_mu(epsilon, delta) for epsilon, delta in counted), default=math.inf)


def compute_profile(
    events: Iterable[Event],
    *,
    neighbouring_relation: NeighbouringRelation = "add_remove",
    deltas: Sequence[float] = DELTAS,
    slack: float = 0.0,
) -> Profile:
    """Compute the epsilon of all events together at many deltas.

    Args:
        events: What happened, in any order.
        neighbouring_relation: What neighbours are.
        deltas: Between 0 and 1, both excluded.
        slack: A chance that something else than the events happens, added to every delta.

    Returns:
        The profile, by the accountant of `compute_cost`: each point is an upper bound.
    """
    listed = list(events)

    def ask(delta: float) -> float:
        return compute_cost(
            listed, delta=delta, neighbouring_relation=neighbouring_relation
        ).epsilon

    points: list[tuple[float, float]] = []
    for delta in sorted(set(deltas)):
        epsilon = ask(delta)
        if epsilon == 0:  # larger deltas add nothing
            low = points[-1][1] - slack if points else 0.0
            points.append((0.0, _find_total_variation(ask, low, delta) + slack))
            break
        points.append((epsilon, delta + slack))
    return Profile(tuple(points))


def bound_posterior(epsilon: float, *, prior: float) -> float:
    """Bound the belief that one was in the data, after seeing all that was released.

    It holds but for a chance of delta: (epsilon, delta)-differential privacy is epsilon-
    differential privacy with probability 1 - delta, and nothing with probability delta.

    Args:
        epsilon: At least 0, possibly infinite.
        prior: The belief before, 0 to 1.

    Returns:
        prior exp(epsilon) / (1 - prior + prior exp(epsilon)).

    References:
        Kairouz, Oh, Viswanath 2015: every (epsilon, delta)-private mechanism is a
        post-processing of randomised response that tells the truth with probability delta.
    """
    if not (epsilon >= 0 and 0 <= prior <= 1):
        raise ConfigError(f"epsilon = {epsilon:g}, prior = {prior:g}: at least 0, and 0 to 1")
    if prior in (0.0, 1.0):
        return prior
    return 1 / (1 + (1 - prior) / prior * math.exp(-epsilon))


def compute_gaussian_delta(epsilon: float, mu: float) -> float:
    """Return the delta of a mu-GDP Gaussian at an epsilon (Balle, Wang 2018, theorem 8)."""
    if mu == 0:
        return 0.0
    second = _find_tail(epsilon / mu + mu / 2)
    scaled = math.exp(epsilon + math.log(second)) if second else 0.0
    return max(0.0, _find_tail(epsilon / mu - mu / 2) - scaled)


def find_mu(epsilon: float, delta: float) -> float:
    """Return the mu whose Gaussian has this delta at this epsilon; infinite above 100."""
    if not math.isfinite(epsilon) or compute_gaussian_delta(epsilon, _MAX_MU) < delta:
        return math.inf
    low, high = 0.0, _MAX_MU
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if compute_gaussian_delta(epsilon, middle) < delta:
            low = middle
        else:
            high = middle
    return high


def _find_total_variation(ask: Callable[[float], float], low: float, high: float) -> float:
    """Return a delta, as small as a few questions find it, at which epsilon is 0."""
    for _ in range(_REFINEMENTS):
        middle = (low + high) / 2
        if ask(middle) == 0:
            high = middle
        else:
            low = middle
    return high


def _bound_advantage(epsilon: float, delta: float) -> float:
    if epsilon > 700:
        return 1.0
    return min(1.0, (math.expm1(epsilon) + 2 * delta) / (math.exp(epsilon) + 1))


def _find_tail(x: float) -> float:
    """Return the probability that a standard normal is above x."""
    return math.erfc(x / math.sqrt(2)) / 2

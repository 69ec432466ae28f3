"""What an epsilon at a delta means for whoever guesses who was in the data.

Legend: FPR the share of non-members who are accused, TPR the share of members who are found.
"""

import math

from fedtrain.errors import ConfigError
from fedtrain.privacy.renyi import NeighbouringRelation


def bound_true_positive_rate(epsilon: float, delta: float, *, false_positive_rate: float) -> float:
    """Bound the share of members that any attack finds.

    An attack is a set S of outputs after which it accuses, of probability FPR without the member
    and TPR with it. The guarantee for S is TPR <= exp(epsilon) FPR + delta; for the complement
    of S, with the roles exchanged, 1 - FPR <= exp(epsilon) (1 - TPR) + delta. Both hold; the
    smaller bound is returned.

    Args:
        epsilon: At least 0, possibly infinite.
        delta: 0 to 1.
        false_positive_rate: 0 to 1: what the attack allows itself.

    Returns:
        The bound, 0 to 1.

    Raises:
        ConfigError: An argument out of its range.

    Guarantees:
        * No attack on the output of an (epsilon, delta)-private mechanism does better, whatever
          else it knows.
        * It is tight: randomised response that reveals all with probability delta attains it.
        * It is at least `false_positive_rate`, which guessing attains.

    References:
        Wasserman, Zhou 2010; Kairouz, Oh, Viswanath 2015; Dong, Roth, Su 2022: the trade-off
        function of (epsilon, delta).
    """
    if not (epsilon >= 0 and 0 <= delta <= 1 and 0 <= false_positive_rate <= 1):
        raise ConfigError(
            f"epsilon = {epsilon:g}, delta = {delta:g}, false_positive_rate ="
            f" {false_positive_rate:g}: at least 0, and two numbers between 0 and 1 are needed"
        )
    missed = max(0.0, 1 - delta - false_positive_rate)
    second = 1 - math.exp(-epsilon) * missed
    if epsilon > 700 and false_positive_rate > 0:
        return second  # the first is far above 1
    first = (math.exp(epsilon) * false_positive_rate if false_positive_rate else 0.0) + delta
    return max(false_positive_rate, min(1.0, first, second))


def describe_attacker(
    epsilon: float,
    delta: float,
    *,
    false_positive_rate: float = 0.01,
    neighbouring_relation: NeighbouringRelation = "add_remove",
) -> str:
    """Say in words what the guarantee leaves to an attacker, rounded up.

    Args:
        epsilon: At least 0, possibly infinite.
        delta: 0 to 1.
        false_positive_rate: What the attack allows itself.
        neighbouring_relation: `add_remove`: is one in the data or not; `replace_one`: which of two
            is, the same bound for another question.

    Returns:
        One sentence.
    """
    bound = bound_true_positive_rate(epsilon, delta, false_positive_rate=false_positive_rate)
    wrong = f"{100 * false_positive_rate:g} %"
    right = f"at most {_format_percent(bound)} %" if bound < 1 else "perhaps all"
    end = "." if bound < 1 else ": nothing is promised."
    if neighbouring_relation == "add_remove":
        return (
            f"An attacker who accuses {wrong} of non-members wrongly finds {right} of members{end}"
        )
    return (
        "An attacker who knows all but one entry and has two candidates for it, and names the"
        f" first in {wrong} of cases where it is the second, names it in {right} of cases where it"
        f" is the first{end}"
    )


def _format_percent(share: float) -> str:
    """Return a share as percent, rounded up, so that it never reads smaller than it is."""
    percent = 100 * share
    for digits in (1, 2, 3, 4, 6, 9):
        rounded = math.ceil(percent * 10**digits - 1e-9) / 10**digits
        if rounded < 100:
            return f"{rounded:.{digits}f}"
    return "100"

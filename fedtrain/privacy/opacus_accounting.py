"""Opacus' PRV and Rényi accountants, as checks on ours.

Opacus knows add/remove of one record and Poisson-sampled Gaussians. Its PRV accountant is sound
where it answers, but on some inputs its search for the root fails, and on others the grid needs
minutes and gigabytes; it never stops a question here: the privacy loss distribution answers, and
the answer says so. Its third accountant, "gdp", is not used: see `fedtrain.privacy.cross_check`.
"""

import math
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from fedtrain.privacy.accounting import compute_cost
from fedtrain.privacy.events import Event, PoissonSampledGaussian
from fedtrain.privacy.renyi import (
    ORDERS,
    NeighbouringRelation,
    compute_rdp_curve,
    convert_to_epsilon,
)

# Opacus returns its upper bound: the true epsilon plus at most twice this.
PRV_ERROR: Final = 0.01
_DELTA_ERROR_SHARE: Final = 1e-3
_MAX_POINTS: Final = 4e6  # of the grid: three seconds, 300 MB
_FAILURES: Final = (RuntimeError, ValueError, ArithmeticError, IndexError)

History = list[tuple[float, float, int]]  # noise_multiplier, sample_rate, steps


@dataclass(frozen=True)
class OpacusAnswer:
    """An epsilon from Opacus, or from the privacy loss distribution in its place.

    Attributes:
        epsilon: At least 0, possibly infinite.
        accountant: What computed it: `prv` and `opacus_rdp` are Opacus'; `pld` and `rdp` ours.
        reason: Why it is not Opacus'; empty where it is.
    """

    epsilon: float
    accountant: Literal["prv", "opacus_rdp", "pld", "rdp"]
    reason: str = ""


def compute_prv_epsilon(
    events: Iterable[Event],
    *,
    delta: float,
    neighbouring_relation: NeighbouringRelation = "add_remove",
) -> OpacusAnswer:
    """Compute the epsilon of all events together with Opacus' PRV accountant.

    Args:
        events: What happened, in any order.
        delta: Between 0 and 1, both excluded.
        neighbouring_relation: What neighbours are.

    Returns:
        Its upper bound, at most 0.02 above the true epsilon; our own epsilon, with the reason,
        where Opacus cannot answer: another relation or event, a failed search for the root, a
        grid of more than four million points.

    Raises:
        TypeError: An event of an unknown type.
        ConfigError: An argument out of its range.

    References:
        Gopi, Lee, Wutschitz 2021, "Numerical Composition of Differential Privacy"
        (arXiv:2106.02848), as implemented in Opacus.
    """
    listed = list(events)
    ours = compute_cost(listed, delta=delta, neighbouring_relation=neighbouring_relation)
    if ours.epsilon == math.inf:
        return OpacusAnswer(math.inf, ours.accountant, "without noise epsilon is infinite")
    history, reason = _collect_history(listed), _find_obstacle(listed, neighbouring_relation)
    if not reason and not history:
        return OpacusAnswer(0.0, "prv")
    if not reason and _count_points(history, delta) > _MAX_POINTS:
        reason = f"Opacus' grid would need more than {_MAX_POINTS:.0e} points"
    if not reason:
        try:
            return OpacusAnswer(_ask("PRVAccountant", history, delta, PRV_ERROR), "prv")
        except _FAILURES as error:
            reason = f"Opacus failed: {type(error).__name__}: {str(error)[:80]}".rstrip(": ")
    return OpacusAnswer(ours.epsilon, ours.accountant, reason)


def compute_opacus_rdp_epsilon(
    events: Iterable[Event],
    *,
    delta: float,
    neighbouring_relation: NeighbouringRelation = "add_remove",
) -> OpacusAnswer:
    """Compute the epsilon of all events together with Opacus' Rényi accountant and orders.

    Args:
        events: What happened, in any order.
        delta: Between 0 and 1, both excluded.
        neighbouring_relation: What neighbours are.

    Returns:
        Its bound; our own Rényi bound, with the reason, where Opacus cannot answer.

    Raises:
        TypeError: An event of an unknown type.
        ConfigError: An argument out of its range.
    """
    listed, relation = list(events), neighbouring_relation
    ours = compute_cost(listed, delta=delta, neighbouring_relation=relation, accountant="rdp")
    if ours.epsilon == math.inf:
        return OpacusAnswer(math.inf, "rdp", "without noise epsilon is infinite")
    history, reason = _collect_history(listed), _find_obstacle(listed, relation)
    if not reason and not history:
        return OpacusAnswer(0.0, "opacus_rdp")
    if not reason:
        try:
            return OpacusAnswer(_ask("RDPAccountant", history, delta), "opacus_rdp")
        except _FAILURES as error:
            reason = f"Opacus failed: {type(error).__name__}: {str(error)[:80]}".rstrip(": ")
    return OpacusAnswer(ours.epsilon, "rdp", reason)


def _find_obstacle(events: list[Event], relation: NeighbouringRelation) -> str:
    """Say why Opacus cannot be asked at all; empty where it can."""
    if relation != "add_remove":
        return "Opacus knows add_remove only"
    if not all(isinstance(event, PoissonSampledGaussian) for event in events):
        return "Opacus knows Poisson-sampled Gaussians only"
    return ""


def _collect_history(events: list[Event]) -> History:
    """Sum the steps of equal mechanisms, leaving out what releases nothing."""
    totals: Counter[tuple[float, float]] = Counter()
    for event in events:
        if isinstance(event, PoissonSampledGaussian) and event.steps and event.sample_rate:
            totals[event.noise_multiplier, event.sample_rate] += event.steps
    return sorted((*key, steps) for key, steps in totals.items())


def _count_points(history: History, delta: float) -> float:
    """Estimate how many points Opacus' grids have, all convolutions together."""
    error = delta * _DELTA_ERROR_SHARE
    total = sum(steps for _, _, steps in history)
    rdp, reach = np.zeros(len(ORDERS)), 0.0
    for noise_multiplier, sample_rate, steps in history:
        step = compute_rdp_curve(noise_multiplier, sample_rate, "add_remove")
        reach = max(reach, convert_to_epsilon(step, delta=error / (8 * total)))
        rdp = rdp + steps * step
    reach = max(reach, convert_to_epsilon(rdp, delta=error / 4)) + 3
    width = PRV_ERROR / math.sqrt(total * math.log(12 / error) / 2)
    return 2 * reach / width * len(history)


def _ask(name: str, history: History, delta: float, eps_error: float | None = None) -> float:
    # Imported here: with torch it takes seconds, which few questions are worth.
    from opacus import accountants

    accountant: Any = getattr(accountants, name)()
    accountant.history = history
    options = {} if eps_error is None else {"eps_error": eps_error}
    # Its warnings are of logarithms of 0 at sample rate 1 and of the largest order: both harmless.
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        epsilon = float(accountant.get_epsilon(delta, **options))
    if math.isnan(epsilon):
        raise ArithmeticError("not a number")
    return max(0.0, epsilon)

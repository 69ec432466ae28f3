"""The same events, asked of every accountant: do they agree?

Two libraries and two methods that share no code: the privacy loss distribution of dp-accounting
(`pld`, the reference), Opacus' privacy random variables (`prv`), our Rényi bound (`rdp`) and
Opacus' (`opacus_rdp`). They must be ordered: pld <= prv <= pld + 0.02, and pld <= rdp.

Opacus' fourth accountant, "gdp", is not offered. It is the central limit of infinitely many small
steps and not a bound: for 120 steps at sample rate 0.01 and noise 0.7 it says 1.06 at delta 1e-5
where the truth is 2.46.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from fedtrain.privacy.accounting import compute_cost
from fedtrain.privacy.events import Event
from fedtrain.privacy.opacus_accounting import (
    PRV_ERROR,
    OpacusAnswer,
    compute_opacus_rdp_epsilon,
    compute_prv_epsilon,
)
from fedtrain.privacy.renyi import NeighbouringRelation

Method = Literal["pld", "prv", "rdp", "opacus_rdp"]
# Where it can be had; `compute_cost` falls back to a coarser answer by itself.
_DISCRETISATION: Final = 1e-4
# What the width of the distribution's grid may add to its epsilon.
_GRID_SHARE: Final = 0.005
_RDP_SHARE: Final = 1e-3
_ROUNDING: Final = 1e-6


@dataclass(frozen=True)
class Answer:
    """What one accountant says.

    Attributes:
        method: The accountant that was asked.
        epsilon: Its answer, at least 0, possibly infinite.
        delta: The delta that epsilon is for.
        neighbouring_relation: What neighbours are.
        accountant: The one that answered: another where `method` could not.
        error: How far the answer may be above the true epsilon; it is never below.
        reason: Why another answered; empty where none did.
    """

    method: Method
    epsilon: float
    delta: float
    neighbouring_relation: NeighbouringRelation
    accountant: Method
    error: str
    reason: str = ""


def cross_check(
    events: Iterable[Event],
    *,
    delta: float,
    neighbouring_relation: NeighbouringRelation = "add_remove",
) -> tuple[Answer, ...]:
    """Ask every accountant for the epsilon of all events together.

    Takes 0.1 to 10 s, and the first time 3 s to import Opacus.

    Args:
        events: What happened, in any order.
        delta: Between 0 and 1, both excluded.
        neighbouring_relation: What neighbours are.

    Returns:
        One answer an accountant, in the order of `Method`.

    Raises:
        TypeError: An event of an unknown type.
        ConfigError: An argument out of its range.
    """
    listed, relation = list(events), neighbouring_relation
    fine = compute_cost(
        listed, delta=delta, neighbouring_relation=relation, discretisation=_DISCRETISATION
    )
    if fine.accountant != "pld":
        fine = compute_cost(listed, delta=delta, neighbouring_relation=relation)
    rdp = compute_cost(listed, delta=delta, neighbouring_relation=relation, accountant="rdp")
    prv = compute_prv_epsilon(listed, delta=delta, neighbouring_relation=relation)
    opacus = compute_opacus_rdp_epsilon(listed, delta=delta, neighbouring_relation=relation)
    reason = "" if fine.accountant == "pld" else describe_pld_gap(delta)
    if prv.accountant != "prv":
        prv = OpacusAnswer(fine.epsilon, fine.accountant, prv.reason)
    found: dict[Method, OpacusAnswer] = {
        "pld": OpacusAnswer(fine.epsilon, fine.accountant, reason),
        "prv": prv,
        "rdp": OpacusAnswer(rdp.epsilon, "rdp"),
        "opacus_rdp": opacus,
    }
    return tuple(
        Answer(
            method,
            answer.epsilon,
            delta,
            relation,
            answer.accountant,
            describe_error(answer.accountant, fine.discretisation),
            answer.reason,
        )
        for method, answer in found.items()
    )


def find_disagreements(answers: Sequence[Answer]) -> list[str]:
    """Find pairs of accountants that cannot both be right.

    Args:
        answers: As `cross_check` returns them, for one relation and delta.

    Returns:
        One line a pair, empty where all agree. An accountant in whose place another answered is
        left out.
    """
    own = {
        answer.method: answer.epsilon for answer in answers if answer.method == answer.accountant
    }
    pld, prv, rdp = own.get("pld"), own.get("prv"), own.get("rdp")
    found = []
    if pld is not None and prv is not None:
        low, high = pld * (1 - _GRID_SHARE) - _ROUNDING, pld + 2 * PRV_ERROR
        if not low <= prv <= high:
            found.append(f"prv = {prv:.6g} is not between pld = {pld:.6g} and pld + 0.02")
    if pld is not None and rdp is not None and not pld <= rdp + _ROUNDING:
        found.append(f"pld = {pld:.6g} is above the bound rdp = {rdp:.6g}")
    opacus = own.get("opacus_rdp")
    # Opacus has fewer orders: its bound may be larger than ours, never smaller.
    if rdp is not None and opacus is not None and opacus < rdp * (1 - _RDP_SHARE) - _ROUNDING:
        found.append(f"opacus_rdp = {opacus:.6g} is below rdp = {rdp:.6g}")
    return found


def describe_error(accountant: str, discretisation: float | None = None) -> str:
    """Say how far an accountant's epsilon may be above the true one."""
    if accountant == "prv":
        return f"at most {2 * PRV_ERROR:g} above"
    if accountant == "pld" and discretisation is None:
        return "exact"  # zero or infinite: there was nothing to put on a grid
    if accountant == "pld":
        return f"at most {100 * _GRID_SHARE:g} % above, grid {discretisation:.3g}"
    return "upper bound, mostly 2 to 30 % above"


def describe_pld_gap(delta: float) -> str:
    """Say why the privacy loss distribution did not answer."""
    if delta < 1e-12:
        return f"delta = {delta:g} is below 1e-12, where its rounding is no longer small"
    return "its grid would need millions of points at so large an epsilon or so many steps"

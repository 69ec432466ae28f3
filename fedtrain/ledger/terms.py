"""What a run asks of a budget, and whether it can have it."""

from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError

from fedtrain.ledger.account import Balance, RunAccount
from fedtrain.ledger.budget import Unit, compute_cost, format_amount
from fedtrain.ledger.entries import Created, Reserved, describe_event
from fedtrain.ledger.faults import BudgetError, LedgerError
from fedtrain.privacy.events import Event


@dataclass(frozen=True)
class Terms:
    """What a run asks of the budget.

    Attributes:
        run: Identifier of the run, unlike any other run's of any federation.
        config_digest: SHA-256 of its config, hex.
        unit: What it protects; `none` fits no budget.
        event: What one round does to the data.
        rounds: Rounds of the whole run.
    """

    run: str
    config_digest: str
    unit: Unit | Literal["none"]
    event: Event
    rounds: int


def compute_round_cost(terms: Terms, created: Created) -> int:
    """Return what one round costs in a ledger.

    Raises:
        BudgetError: It has no finite cost there (`misfit`).
        TypeError: An event of an unknown type.
    """
    cost = None
    if terms.unit != "none":
        cost = compute_cost(terms.event, created.to_budget(), order=created.order, unit=terms.unit)
    if cost is None:
        raise BudgetError(
            "misfit",
            f"run '{terms.run}' protects unit '{terms.unit}' by {terms.event}: that has no"
            f" finite cost for one {created.unit}; it needs noise, and a unit as coarse",
        )
    return cost


def count_affordable(terms: Terms, cost: int, *, balance: Balance, partial: bool) -> int:
    """Return how many rounds a run may reserve.

    Raises:
        BudgetError: Not one (`spent`, or `misfit` where not even a fresh budget could bear it),
            or, without `partial`, not all (`misfit`).
    """
    if terms.rounds < 1:
        raise BudgetError("misfit", f"rounds = {terms.rounds} is not at least 1")
    affordable = terms.rounds if cost == 0 else min(terms.rounds, balance.left // cost)
    price = f"a round of run '{terms.run}' costs {format_amount(cost)}"
    if affordable < 1:
        raise BudgetError(
            "misfit" if cost > balance.total else "spent",
            f"{price}, {format_amount(balance.left)} of {format_amount(balance.total)} is left"
            f" ({format_amount(balance.reserved)} reserved by other runs); more noise or fewer"
            " steps cost less, a run that is over can be closed",
        )
    if affordable < terms.rounds and not partial:
        raise BudgetError(
            "misfit",
            f"{price}, {affordable} of {terms.rounds} rounds fit, and policy.partial_runs is off",
        )
    return affordable


def make_reserved(terms: Terms, cost: int, *, rounds: int, left: int) -> Reserved:
    """Return the entry that reserves rounds, at a cost each, so that so much is left.

    Raises:
        LedgerError: The terms do not fit an entry: a name or a digest is malformed.
    """
    mechanism, parameters = describe_event(terms.event)
    try:
        return Reserved.model_validate(
            {
                "run": terms.run,
                "config_digest": terms.config_digest,
                "unit": terms.unit,
                "mechanism": mechanism,
                "parameters": parameters,
                "rounds_asked": terms.rounds,
                "rounds": rounds,
                "cost": format_amount(cost),
                "left": format_amount(left),
            }
        )
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise LedgerError(f"terms of the run: {where}: {problem['msg']}") from error


def match_terms(own: RunAccount, terms: Terms) -> RunAccount:
    """Return the account of a run that is reserved already.

    Raises:
        BudgetError: It is reserved on other terms (`misfit`), or over (`replay`).
    """
    kept = own.terms
    wanted = (terms.config_digest, terms.unit, *describe_event(terms.event), terms.rounds)
    found = (
        kept.config_digest,
        kept.unit,
        kept.mechanism,
        kept.parameters,
        kept.rounds_asked,
    )
    if wanted != found:
        raise BudgetError(
            "misfit",
            f"run '{terms.run}' is reserved on other terms; a run that changed needs a new name",
        )
    if own.is_closed:
        raise BudgetError("replay", f"run '{terms.run}' was closed; start a new run")
    return own

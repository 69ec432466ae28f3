"""The lifetime budget of a data set: a Rényi filter of one fixed order.

Runs are chosen after seeing what earlier runs gave, and several may be under way at once, so that
composition theorems for a plan fixed beforehand do not apply. A filter does: the budget is fixed,
and every step is refused that would overspend it.

Amounts are Rényi divergences in whole units of 10^-12. Costs are rounded up and the budget is
rounded down, so that sums are exact and never under-count.

Guarantees:
    * Whatever runs are chosen, when and by whom, in whatever order their rounds interleave: as
      long as the sum of costs stays within the budget, all releases together are
      (epsilon, delta)-differentially private for the budget's unit and neighbouring relation.
    * The order depends on the budget alone, never on a run.
    * An event whose cost is not known raises TypeError; it is never free.

References:
    Feldman, Zrnic 2021 (arXiv:2008.11193): a Rényi filter of fixed order holds under fully
    adaptive composition. Haney, Shoemate, Tian, Vadhan, Vyrros, Xu, Zhang 2023
    (arXiv:2309.05901): filters stay valid for concurrent interactive mechanisms, for Rényi
    differential privacy of fixed order, too. Canonne, Kamath, Steinke 2020 (arXiv:2004.00010),
    Proposition 12: from Rényi to (epsilon, delta).
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, Literal

from fedtrain.errors import ConfigError
from fedtrain.privacy.event_rdp import compute_event_rdp
from fedtrain.privacy.events import DistributedDiscreteGaussian, Event, Unprotected
from fedtrain.privacy.renyi import NeighbouringRelation

Unit = Literal["record", "person", "site"]

UNITS_PER_ONE: Final = 10**12
# Orders that are tried: fine where the best one of usual budgets lies, few above.
_ORDERS: Final = (
    *(round(1 + tenth / 10, 1) for tenth in range(1, 400)),
    *(float(round(41 * 1.02**i)) for i in range(400)),
)
# What a computed divergence may be off: the quadrature's rounding, relative and a step absolute.
_RELATIVE_MARGIN: Final = 1e-9
_STEP_MARGIN: Final = 1e-13
_COARSENESS: Final[dict[str, int]] = {"record": 0, "person": 1, "site": 2}


@dataclass(frozen=True)
class Budget:
    """What all runs on a data set together may cost, for life.

    Attributes:
        epsilon: Above 0.
        delta: Between 0 and 1, both excluded; below one over the number of records.
        unit: What is protected: one record, one person, or the site as a whole.
        neighbouring_relation: What neighbours are.

    Raises:
        ConfigError: A number is out of its range.
    """

    epsilon: float
    delta: float
    unit: Unit = "record"
    neighbouring_relation: NeighbouringRelation = "add_remove"

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < math.inf:
            raise ConfigError(
                f"budget: epsilon = {self.epsilon:g} is not a finite number above 0; give what all"
                " runs together may cost"
            )
        if not 0 < self.delta < 1:
            raise ConfigError(
                f"budget: delta = {self.delta:g} is not between 0 and 1; 1e-6 is usual"
            )


@lru_cache(maxsize=64)
def choose_order(budget: Budget) -> float:
    """Return the order at which the budget admits most Gaussian releases.

    A Gaussian's divergence is proportional to the order, so that it is the argmax of
    `compute_total` / order: 4.4 for epsilon 8 at delta 1e-6.

    Raises:
        ConfigError: The budget is too small for any order.
    """
    order = max(_ORDERS, key=lambda order: _compute_divergence(budget, order) / order)
    if compute_total(budget, order) <= 0:
        raise ConfigError(
            f"budget: epsilon = {budget.epsilon:g} at delta = {budget.delta:g} admits no release;"
            " raise one of them"
        )
    return order


def compute_total(budget: Budget, order: float) -> int:
    """Return the Rényi divergence at an order that proves the budget, in units, rounded down.

    References:
        Canonne, Kamath, Steinke 2020, Proposition 12, solved for the divergence.
    """
    divergence = _compute_divergence(budget, order)
    return math.floor((divergence - abs(divergence) * _RELATIVE_MARGIN) * UNITS_PER_ONE)


def compute_epsilon(amount: int, *, delta: float, order: float) -> float:
    """Return the epsilon at `delta` that a divergence proves; 0 for nothing spent."""
    if amount <= 0:
        return 0.0
    slack = math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)
    return max(0.0, amount / UNITS_PER_ONE + slack)


def charge_event(event: Event, budget: Budget, *, unit: Unit) -> tuple[Event, NeighbouringRelation]:
    """Return what a budget is charged for an event, and in which relation.

    Where the run protects a coarser unit than the budget (a person, of a budget for records), a
    record more or less exchanges what the coarser unit contributes: that is `replace_one`,
    whichever relation the budget has. Sampling of sites is not counted: it would pay less for a
    round, but then for the rounds, too, that the site is not drawn for, and here a site pays for
    those alone that it takes part in.
    """
    is_coarser = _COARSENESS[unit] > _COARSENESS[budget.unit]
    if isinstance(event, DistributedDiscreteGaussian):
        event = replace(event, sample_rate=1.0)
    return event, "replace_one" if is_coarser else budget.neighbouring_relation


def compute_cost(event: Event, budget: Budget, *, order: float, unit: Unit) -> int | None:
    """Compute what an event costs at the budget's order, in units, rounded up.

    It is the cost of `charge_event`.

    Args:
        event: What happens.
        budget: Whose relation and unit count; the run's own relation does not.
        order: The ledger's order.
        unit: What the run protects.

    Returns:
        The cost, or None where it is infinite: no noise, or a unit finer than the budget's.

    Raises:
        TypeError: An event of an unknown type.
    """
    divergence, margin = _compute_bounds(event, budget, order, unit)
    if math.isinf(divergence):
        return None
    return math.ceil((divergence + margin) * UNITS_PER_ONE)


def is_cost(amount: int, event: Event, budget: Budget, *, order: float, unit: Unit) -> bool:
    """Return whether an amount is what `compute_cost` gives, up to a rounding by another machine.

    No amount is accepted that is below the event's divergence.
    """
    divergence, margin = _compute_bounds(event, budget, order, unit)
    if math.isinf(divergence):
        return False
    low = math.ceil(divergence * UNITS_PER_ONE)
    return low <= amount <= math.ceil((divergence + 2 * margin) * UNITS_PER_ONE)


def format_amount(amount: int) -> str:
    """Return an amount as a decimal number with twelve digits after the point."""
    return f"{amount // UNITS_PER_ONE}.{amount % UNITS_PER_ONE:012d}"


def parse_amount(text: str) -> int:
    """Return the amount that `format_amount` wrote."""
    whole, _, rest = text.partition(".")
    return int(whole) * UNITS_PER_ONE + int(rest)


def _compute_divergence(budget: Budget, order: float) -> float:
    log_term = (math.log(budget.delta) + math.log(order)) / (order - 1)
    return budget.epsilon - math.log1p(-1 / order) + log_term


@lru_cache(maxsize=4096)
def _compute_bounds(event: Event, budget: Budget, order: float, unit: Unit) -> tuple[float, float]:
    """Return an event's divergence as computed, and what it may be off."""
    if _COARSENESS[unit] < _COARSENESS[budget.unit]:
        return math.inf, 0.0
    event, relation = charge_event(event, budget, unit=unit)
    divergence = compute_event_rdp(event, order=order, neighbouring_relation=relation)
    if math.isinf(divergence) or isinstance(event, Unprotected):
        return math.inf, 0.0
    is_free = event.steps == 0 or event.sample_rate == 0
    margin = 0.0 if is_free else divergence * _RELATIVE_MARGIN + event.steps * _STEP_MARGIN
    return divergence, margin

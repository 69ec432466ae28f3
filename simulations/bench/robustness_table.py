"""Outcomes of attacks as a table and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from rich.table import Table

from fedtrain.report.tables import make_table

from .robustness import ATTACKERS, ATTACKS, DEFENCES, SITES, Outcome

LEGEND: Final = (
    "Test accuracy of the global model. The average keeps secure aggregation, bound or not; other"
    " rules look at single updates, which the coordinator then sees. A site beyond the bound is"
    " refused by its own client: an attacker that writes a client of its own is not.\n"
)


def render_robustness(outcomes: Sequence[Outcome]) -> Table:
    """Return one row a defence, one column an attack."""
    found = {(one.defence, one.attack): f"{one.accuracy:.1%}" for one in outcomes}
    rows = [[name, *(found.get((name, attack), "-") for attack in ATTACKS)] for name in DEFENCES]
    title = f"{ATTACKERS} of {SITES} sites attack"
    return make_table(("defence", *ATTACKS), rows, title=title)


def to_json_robustness(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the outcomes as values that JSON can hold."""
    return {
        "sites": SITES,
        "attackers": ATTACKERS,
        "outcomes": [asdict(one) for one in outcomes],
    }

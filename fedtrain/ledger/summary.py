"""A site's ledger for people: its entries as a table, its budget as a bar; and both as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from fedtrain.ledger.account import Account, RunAccount
from fedtrain.ledger.budget import UNITS_PER_ONE, charge_event, compute_epsilon
from fedtrain.ledger.entries import Body, Closed, Committed, Entry, Reserved
from fedtrain.privacy.accounting import compute_cost
from fedtrain.privacy.events import Event, Unprotected
from fedtrain.report.tables import (
    NOTHING,
    format_epsilon,
    format_time,
    make_facts,
    make_table,
)

WIDTH: Final = 60
MARKS: Final = "#+."
NOTE: Final = (
    "# committed, + reserved by runs that are not over, . left. Releases are refused by the Rényi"
    " divergence; the tight epsilon is what the committed rounds would cost had they been planned"
    " beforehand, and is for information.\n"
)


@dataclass(frozen=True)
class RunSummary:
    """One run on the data.

    Attributes:
        run: The run.
        unit: What it protects.
        mechanism: How.
        state: `open` or `closed`.
        rounds: Committed, reserved and asked for.
        committed: What its committed rounds cost, in units of 10^-12.
        reserved: What its other reserved rounds would.
        epsilon: Tight epsilon of its committed rounds at the budget's delta.
    """

    run: str
    unit: str
    mechanism: str
    state: str
    rounds: tuple[int, int, int]
    committed: int
    reserved: int
    epsilon: float


def summarise_runs(account: Account) -> list[RunSummary]:
    """Return a summary of each run, in order of their reservations."""
    return [_summarise(own, account) for own in account.runs.values()]


def compute_tight_epsilon(account: Account, runs: Sequence[RunAccount]) -> float:
    """Return the epsilon of the committed rounds of runs, as of a plan made beforehand."""
    budget = account.budget
    charged = [charge_event(_collect(own), budget, unit=own.terms.unit) for own in runs]
    relations = {relation for _, relation in charged}
    # Exchanging one of a unit costs no less than one more or less of it.
    relation = "replace_one" if "replace_one" in relations else budget.neighbouring_relation
    events = [event for event, _ in charged]
    return compute_cost(events, delta=budget.delta, neighbouring_relation=relation).epsilon


def build_budget(account: Account) -> dict[str, Any]:
    """Return the budget and what became of it as a JSON object."""
    created, balance = account.created, account.balance
    amounts = {
        "committed": balance.spent,
        "committed_and_reserved": balance.spent + balance.reserved,
        "total": balance.total,
    }
    return {
        "data_set": created.data_set,
        "ledger": created.ledger,
        "unit": created.unit,
        "neighbouring_relation": created.neighbouring_relation,
        "delta": created.delta,
        "order": created.order,
        "divergence": {
            **{name: amount / UNITS_PER_ONE for name, amount in amounts.items()},
            "reserved": balance.reserved / UNITS_PER_ONE,
            "left": balance.left / UNITS_PER_ONE,
        },
        "epsilon": {
            name: compute_epsilon(amount, delta=created.delta, order=created.order)
            for name, amount in amounts.items()
        }
        | {"total": created.epsilon},
        "tight_epsilon_committed": compute_tight_epsilon(account, list(account.runs.values())),
        "runs": [_to_tree(run) for run in summarise_runs(account)],
    }


def render_budget(account: Account) -> RenderableType:
    """Return the bar, the amounts and a table of runs."""
    tree, balance = build_budget(account), account.balance
    epsilon, divergence = tree["epsilon"], tree["divergence"]
    facts = [
        ("data set", tree["data_set"]),
        ("budget", _describe_budget(account)),
        ("bar", _draw_bar(balance.spent, balance.reserved, balance.total)),
        ("committed", _describe_amount(divergence["committed"], epsilon["committed"], tree)),
        ("with reserved", _describe_amount(*_get_both(tree, "committed_and_reserved"), tree)),
        ("left", f"{divergence['left']:.6f} of {divergence['total']:.6f}"),
        ("tight epsilon", f"{format_epsilon(tree['tight_epsilon_committed'])} (committed)"),
    ]
    rows = [
        (
            run.run,
            run.unit,
            run.state,
            "/".join(str(number) for number in run.rounds),
            f"{run.committed / UNITS_PER_ONE:.6f}",
            f"{run.reserved / UNITS_PER_ONE:.6f}",
            format_epsilon(run.epsilon),
        )
        for run in summarise_runs(account)
    ]
    headers = ("run", "unit", "state", "rounds*", "committed", "reserved", "tight epsilon")
    note = f"{NOTE}* committed/reserved/asked for\n"
    return Group(make_facts(facts), Text(), make_table(headers, rows, texts=3), Text(note))


def render_entries(entries: Sequence[Entry], limit: int | None) -> RenderableType:
    """Return what the ledger is, and a table of its last entries.

    Args:
        entries: All of them.
        limit: Most rows; None for all.
    """
    account = Account.replay(entries)
    head = entries[-1].to_head()
    shown = entries if limit is None else entries[-limit:]
    facts = [
        ("data set", account.created.data_set),
        ("ledger", account.created.ledger),
        ("key", account.created.public_key),
        ("budget", _describe_budget(account)),
        ("head", f"{head.digest}:{head.index}"),
    ]
    headers = ("time", "entry", "run", "index", "round", "rounds", "cost", "left")
    table = make_table(
        headers,
        [_make_row(entry) for entry in shown],
        title=f"last {len(shown)} of {len(entries)} entries" if len(shown) < len(entries) else "",
        texts=3,
    )
    return Group(make_facts(facts), Text(), table)


def _make_row(entry: Entry) -> tuple[str, ...]:
    body = entry.body
    run, number, rounds, cost, left = _describe_body(body)
    return (format_time(entry.time), body.kind, run, str(entry.index), number, rounds, cost, left)


def _describe_body(body: Body) -> tuple[str, str, str, str, str]:
    """Return run, round, rounds, cost and what is left."""
    if isinstance(body, Reserved):
        return body.run, NOTHING, f"{body.rounds} of {body.rounds_asked}", body.cost, body.left
    if isinstance(body, Committed):
        return body.run, str(body.round), NOTHING, body.cost, body.left
    if isinstance(body, Closed):
        return body.run, NOTHING, f"{body.refunded} back", NOTHING, body.left
    return NOTHING, NOTHING, NOTHING, NOTHING, body.total


def _summarise(own: RunAccount, account: Account) -> RunSummary:
    terms, done = own.terms, len(own.rounds)
    return RunSummary(
        run=terms.run,
        unit=terms.unit,
        mechanism=terms.mechanism,
        state="closed" if own.is_closed else "open",
        rounds=(done, terms.rounds, terms.rounds_asked),
        committed=own.cost * done,
        reserved=own.cost * own.rounds_left,
        epsilon=compute_tight_epsilon(account, [own]),
    )


def _collect(own: RunAccount) -> Event:
    """Return what the committed rounds of a run were together."""
    event = own.terms.to_event()
    if isinstance(event, Unprotected):
        return event
    return replace(event, steps=event.steps * len(own.rounds))


def _to_tree(run: RunSummary) -> dict[str, Any]:
    done, reserved, asked = run.rounds
    return {
        "run": run.run,
        "unit": run.unit,
        "mechanism": run.mechanism,
        "state": run.state,
        "rounds_committed": done,
        "rounds_reserved": reserved,
        "rounds_asked": asked,
        "divergence_committed": run.committed / UNITS_PER_ONE,
        "divergence_reserved": run.reserved / UNITS_PER_ONE,
        "tight_epsilon_committed": run.epsilon,
    }


def _describe_budget(account: Account) -> str:
    created = account.created
    return (
        f"epsilon = {created.epsilon:g} at delta = {created.delta:g} for one {created.unit}"
        f" ({created.neighbouring_relation}); Rényi divergence {created.total} at order"
        f" {created.order:g}"
    )


def _describe_amount(divergence: float, epsilon: float, tree: dict[str, Any]) -> str:
    total = tree["divergence"]["total"]
    return (
        f"{divergence:.6f} of {total:.6f} ({divergence / total:.1%}); proves epsilon ="
        f" {format_epsilon(epsilon)} of {tree['epsilon']['total']:g}"
    )


def _get_both(tree: dict[str, Any], name: str) -> tuple[float, float]:
    return tree["divergence"][name], tree["epsilon"][name]


def _draw_bar(spent: int, reserved: int, total: int) -> str:
    """Return the bar; whatever is above nothing has at least one mark, rounded against the site."""
    first = -(-spent * WIDTH // total)
    second = max(-(-(spent + reserved) * WIDTH // total), first + (reserved > 0))
    second = min(second, WIDTH)
    first = min(first, second - (reserved > 0))
    return f"[{MARKS[0] * first}{MARKS[1] * (second - first)}{MARKS[2] * (WIDTH - second)}]"

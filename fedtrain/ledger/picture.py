"""A picture of a budget: what each run took of it, and how it went down."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedtrain.ledger.account import Account, Balance
from fedtrain.ledger.budget import UNITS_PER_ONE
from fedtrain.ledger.entries import Entry
from fedtrain.ledger.summary import RunSummary, summarise_runs
from fedtrain.report.curves import BLACK, BLUE, ORANGE, SIZE, STYLE

MOST_RUNS: Final = 20
NAME_LENGTH: Final = 28


def draw_budget(entries: Sequence[Entry], path: Path) -> None:
    """Draw what each run committed and reserved, and the budget entry by entry.

    Args:
        entries: The whole ledger.
        path: The PNG file to write.
    """
    account = Account.replay(entries)
    created = account.created
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=SIZE, layout="constrained")
        left, right = figure.subplots(1, 2)
        _draw_runs(left, summarise_runs(account)[-MOST_RUNS:])
        _draw_history(right, trace_balance(entries))
        for axes, set_label in ((left, left.set_xlabel), (right, right.set_ylabel)):
            set_label(f"Rényi divergence at order {created.order:g}")
            axes.set_axisbelow(True)
        figure.suptitle(
            f"{created.data_set}: epsilon = {created.epsilon:g} at delta = {created.delta:g} for"
            f" life, one {created.unit}",
            fontsize=9.5,
        )
        figure.savefig(path, format="png", metadata={"Software": None}, facecolor="white")


def trace_balance(entries: Sequence[Entry]) -> list[Balance]:
    """Return where the budget stood after each entry."""
    account, balances = Account.replay(entries[:1]), []
    for entry in entries:
        if entry.index:
            account.apply(entry.body, entry.to_head())
        balances.append(account.balance)
    return balances


def _draw_runs(axes: Axes, runs: Sequence[RunSummary]) -> None:
    names = [run.run[:NAME_LENGTH] for run in runs]
    committed = [run.committed / UNITS_PER_ONE for run in runs]
    reserved = [run.reserved / UNITS_PER_ONE for run in runs]
    places = range(len(runs))
    axes.barh(places, committed, color=BLUE, label="committed")
    axes.barh(places, reserved, left=committed, color=ORANGE, label="reserved")
    axes.set_ylim(-0.8, max(len(runs) + 1, 4) + 0.2)  # room for the legend, no fat bars
    axes.set_yticks(list(places), names)
    axes.grid(visible=False, axis="y")
    axes.invert_yaxis()
    axes.set_title("By run")
    if runs:
        axes.legend(loc="lower right")
    else:
        axes.text(0.5, 0.5, "no runs yet", ha="center", va="center", transform=axes.transAxes)


def _draw_history(axes: Axes, balances: Sequence[Balance]) -> None:
    indices = range(len(balances))
    spent = [balance.spent / UNITS_PER_ONE for balance in balances]
    taken = [(balance.spent + balance.reserved) / UNITS_PER_ONE for balance in balances]
    axes.step(indices, taken, where="post", color=ORANGE, label="committed and reserved")
    axes.step(indices, spent, where="post", color=BLUE, label="committed")
    axes.axhline(balances[-1].total / UNITS_PER_ONE, color=BLACK, linestyle=":", label="budget")
    axes.set_ylim(0, 1.3 * balances[-1].total / UNITS_PER_ONE)
    axes.set_xlabel("entry")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title("Entry by entry")
    axes.legend(loc="upper left", ncols=3, columnspacing=1.0, handlelength=1.4)

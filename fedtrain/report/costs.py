"""What a run cost, round by round: seconds and bytes.

Processor time and energy are not kept by round: workers and sites are processes of their own.
`fedtrain check --plan` measures one round of both on this machine.
"""

from itertools import accumulate
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from fedtrain.report.run import Run, to_finite
from fedtrain.report.tables import (
    NOTHING,
    format_bytes,
    format_count,
    format_seconds,
    make_table,
    thin,
)

LIMIT: Final = 20
HEADERS: Final = (
    *("round", "time", "to the sites", "back", "a site"),
    *("time\nso far", "bytes\nso far"),
)
PLAN: Final = "Processor time, and energy where the machine tells it: fedtrain check --plan."


def render_costs(run: Run, limit: int | None = LIMIT) -> RenderableType:
    """Return seconds and bytes of the rounds as a table, and their sums.

    Args:
        run: The run.
        limit: About so many rounds, evenly chosen, the ends among them; None: all.

    Returns:
        Something that a rich console prints. `a site` is the mean over the cohort, both ways.
    """
    seconds, down, up = (_list(run, key) for key in ("seconds", "bytes_down", "bytes_up"))
    both = [sent + back for sent, back in zip(down, up, strict=True)]
    times, traffic = list(accumulate(seconds)), list(accumulate(both))
    rows = [
        (
            str(run.metrics[at]["round"]),
            format_seconds(seconds[at]),
            format_bytes(down[at]),
            format_bytes(up[at]),
            _share(both[at], run.metrics[at].get("cohort")),
            format_seconds(times[at]),
            format_bytes(traffic[at]),
        )
        for at in thin(len(both), limit or len(both) or 1)
    ]
    shown = "" if len(rows) == len(both) else f", {len(rows)} of {len(both)} rounds shown"
    total = (
        f"{format_count(len(both), 'round')}: {format_seconds(sum(seconds))},"
        f" {format_bytes(sum(down))} to the sites, {format_bytes(sum(up))} back. {PLAN}"
    )
    return Group(make_table(HEADERS, rows, title=f"Cost{shown}", texts=0), Text(total))


def _list(run: Run, key: str) -> list[float]:
    """Return a figure of every round, 0 where a round has none."""
    return [to_finite(line.get(key)) or 0.0 for line in run.metrics]


def _share(count: float, cohort: object) -> str:
    sites = to_finite(cohort)
    return format_bytes(count / sites) if sites else NOTHING

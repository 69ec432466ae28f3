"""What a run cost, by round and by site: seconds, processor and GPU seconds, bytes, energy.

Seconds and bytes of the rounds are the run's own (`metrics.jsonl`); the rest is measured beside it
(`fedtrain.costs`): all of it in a simulation, bytes by site where sites are deployed.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from fedtrain.costs import COSTS, RoundCost
from fedtrain.energy import Power, compute_joules
from fedtrain.report.cost_sums import (
    COORDINATOR,
    SiteTotal,
    is_measured,
    load_run_costs,
    sum_all,
    sum_sites,
)
from fedtrain.report.run import Run, to_finite
from fedtrain.report.tables import (
    NOTHING,
    format_bytes,
    format_count,
    format_joules,
    format_seconds,
    make_table,
    thin,
)

LIMIT: Final = 20
SITE_LIMIT: Final = 30
HEADERS: Final = (
    *("round", "time", "CPU", "GPU", "to the sites", "back", "a site", "energy"),
    *("time\nso far", "bytes\nso far"),
)
SITE_HEADERS: Final = ("site", "rounds", "CPU", "GPU", "to it", "back", "energy")
PLAN: Final = "What more sites or rounds would cost: fedtrain check --plan."
COUNTED: Final = (
    "Energy: of this machine's processor as it counted it (RAPL), whatever else ran in it; shared"
    " out by processor time."
)
UNKNOWN: Final = "Energy: not counted here; --watts W assumes W watts for each processor core."
OWN: Final = (
    f"How long a site computes depends on its records: these figures are for whoever has them all,"
    f" and no guarantee covers them. Remove {COSTS} before the folder is handed on."
)


def render_costs(
    run: Run, limit: int | None = LIMIT, *, power: Power | None = None
) -> RenderableType:
    """Return a run's costs by round and by site, and their sums.

    Args:
        run: The run.
        limit: About so many rounds, evenly chosen, the ends among them; None: all, and all sites.
        power: Assumed; None: the energy that was counted.

    Returns:
        Something that a rich console prints. `a site`, where there is no table by site, is the
        mean over the cohort, both ways.
    """
    costs = load_run_costs(run)
    parts: list[RenderableType] = [_render_rounds(run, costs, limit, power=power)]
    if costs:
        sites = sum_sites(costs, power)
        parts.append(_render_sites(sites, SITE_LIMIT if limit else None))
    if is_measured(costs):
        parts += [Text(_describe_energy(costs, power)), Text(OWN)]
    return Group(*parts, Text(PLAN))


def _render_rounds(
    run: Run, costs: Sequence[RoundCost], limit: int | None, *, power: Power | None
) -> RenderableType:
    seconds, down, up = (_list(run, key) for key in ("seconds", "bytes_down", "bytes_up"))
    both = [sent + back for sent, back in zip(down, up, strict=True)]
    times, traffic = list(accumulate(seconds)), list(accumulate(both))
    by_round = {cost.round: cost for cost in costs}
    rows = [
        (
            str(run.metrics[at]["round"]),
            format_seconds(seconds[at]),
            *_format_cpu(by_round.get(int(run.metrics[at]["round"]))),
            format_bytes(down[at]),
            format_bytes(up[at]),
            # The table by site says more.
            NOTHING if costs else _share(both[at], run.metrics[at].get("cohort")),
            _format_energy(by_round.get(int(run.metrics[at]["round"])), power),
            format_seconds(times[at]),
            format_bytes(traffic[at]),
        )
        for at in thin(len(both), limit or len(both) or 1)
    ]
    shown = "" if len(rows) == len(both) else f", {len(rows)} of {len(both)} rounds shown"
    total = (
        f"{format_count(len(both), 'round')}: {format_seconds(sum(seconds))},"
        f" {format_bytes(sum(down))} to the sites, {format_bytes(sum(up))} back."
    )
    whole = sum_all(run, power)
    if whole is not None:
        cost, joules = whole
        total += f" The start included: {format_seconds(cost.cpu_seconds)} of processors"
        total += f", {format_seconds(cost.gpu_seconds)} of GPUs" if cost.gpu_seconds else ""
        total += "." if joules is None else f", {format_joules(joules)}."
    table = make_table(HEADERS, rows, title=f"Cost by round{shown}", texts=0)
    return Group(table, Text(total), Text())


def _render_sites(sites: Sequence[SiteTotal], limit: int | None) -> RenderableType:
    title = "Cost by site"
    shown = [one for one in sites if one.name != COORDINATOR]
    if limit is not None and len(shown) > limit:
        title += f", the {limit} of {len(shown)} that cost most"
        shown = sorted(shown, key=lambda one: (-one.cost.cpu_seconds, -one.cost.bytes_up))[:limit]
    shown += [one for one in sites if one.name == COORDINATOR]
    measured = len(shown) > 0 and shown[-1].name == COORDINATOR
    rows = []
    for one in shown:
        cost, asked = one.cost, one.name != COORDINATOR
        rows.append(
            (
                one.name,
                str(one.rounds) if asked else NOTHING,
                format_seconds(cost.cpu_seconds) if measured else NOTHING,
                format_seconds(cost.gpu_seconds or None),
                format_bytes(cost.bytes_down) if asked else NOTHING,
                format_bytes(cost.bytes_up) if asked else NOTHING,
                format_joules(one.joules),
            )
        )
    return make_table(SITE_HEADERS, rows, title=title)


def _describe_energy(costs: Sequence[RoundCost], power: Power | None) -> str:
    if power is None:
        return COUNTED if any(cost.joules is not None for cost in costs) else UNKNOWN
    gpu = any(cost.total.gpu_seconds for cost in costs)
    assumed = f" and {power.gpu_watts:g} W for a GPU" if gpu and power.gpu_watts else ""
    left_out = "; that of the GPU is left out (--gpu-watts)" if gpu and not power.gpu_watts else ""
    return (
        f"Energy: assumed, not measured: {power.watts:g} W for each processor core at work"
        f"{assumed}{left_out}."
    )


def _format_cpu(cost: RoundCost | None) -> tuple[str, str]:
    if cost is None or cost.coordinator_seconds is None:
        return NOTHING, NOTHING
    total = cost.total
    return format_seconds(total.cpu_seconds), format_seconds(total.gpu_seconds or None)


def _format_energy(cost: RoundCost | None, power: Power | None) -> str:
    return format_joules(None if cost is None else compute_joules(cost, power))


def _list(run: Run, key: str) -> list[float]:
    """Return a figure of every round, 0 where a round has none."""
    return [to_finite(line.get(key)) or 0.0 for line in run.metrics]


def _share(count: float, cohort: object) -> str:
    sites = to_finite(cohort)
    return format_bytes(count / sites) if sites else NOTHING

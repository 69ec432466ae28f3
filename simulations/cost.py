"""What a run would cost at other numbers of sites and rounds, from one round that is measured.

Computation and the vectors grow with the sites; what secure aggregation sends between each two of
them grows with the pairs, of whom a site has all others, and above 200 sites its neighbours.
"""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Group, RenderableType

from fedtrain.config import Config
from fedtrain.costs import load_costs
from fedtrain.energy import Power, compute_joules
from fedtrain.errors import ConfigError
from fedtrain.plan import compute_planned_cost, sends_metrics
from fedtrain.report.costs import UNKNOWN
from fedtrain.report.tables import (
    format_bytes,
    format_count,
    format_epsilon,
    format_joules,
    format_seconds,
    make_table,
)
from fedtrain.secagg.graph import COMPLETE_UP_TO, plan_graph

from .opening import Opened
from .simulate import simulate, start

# Keys and shares for one other site in one secure sum, up and down; a round has one of updates and
# one of metrics. Measured, and held by a test.
PAIR_UP: Final = 202
PAIR_DOWN: Final = 435


@dataclass(frozen=True)
class Cost:
    """What rounds of a run cost.

    Attributes:
        sites: Sites asked in a round.
        rounds: Rounds.
        cpu_seconds: Processor time of all sites and the coordinator, on this machine.
        site_seconds: That of one site, on average.
        gpu_seconds: For how long they had a GPU.
        seconds_here: How long a simulation takes on this machine.
        bytes_up: From the sites to the coordinator.
        bytes_down: From the coordinator to the sites.
        joules: Energy: what this machine's processor took meanwhile, or an assumed power's; None
            where it can neither be read nor is assumed.
        epsilon: What a record or person pays; None where that is not protected.
    """

    sites: int
    rounds: int
    cpu_seconds: float
    seconds_here: float
    bytes_up: float
    bytes_down: float
    site_seconds: float = 0.0
    gpu_seconds: float = 0.0
    joules: float | None = None
    epsilon: float | None = None


class _Meter:
    """A display that keeps what is known at the end of each round."""

    def __init__(self) -> None:
        self.lines: list[tuple[Mapping[str, float], float]] = []

    def on_start(self, *, rounds: int, done: int, sites: int) -> None:
        """The rounds begin."""

    def on_round(self, metrics: dict[str, float | int]) -> None:
        """Keep its line, and read the clock."""
        self.lines.append((metrics, time.monotonic()))

    def close(self) -> None:
        """The run has ended."""


def measure_round(opened: Opened, power: Power | None = None) -> Cost:
    """Run two rounds of a scenario in a folder that is removed again, and measure the second.

    No site's ledger is touched: the sites have none here.

    Args:
        opened: The scenario.
        power: Assumed; None: energy is what the machine counts.

    Raises:
        ConfigError: The run ended after its first round.
    """
    config = opened.config
    changes: dict[str, Any] = {
        "federation": config.federation.model_copy(update={"rounds": 2}),
        "simulation": config.simulation.model_copy(update={"workers": 1, "sites_directory": None}),
    }
    short = Opened(
        config.model_copy(update=changes),
        opened.sites,
        opened.fingerprint,
        opened.preparation,
        opened.size,
    )
    meter = _Meter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        simulate(start(short, path), meter)
        costs = load_costs(path)
    if len(meter.lines) < 2:
        raise ConfigError("the measured run ended after one round; it needs two")
    (_, begun), (metrics, ended) = meter.lines[:2]
    measured = costs[-1]
    planned = compute_planned_cost(config, 1)
    return Cost(
        sites=int(metrics["cohort"]),
        rounds=1,
        cpu_seconds=measured.total.cpu_seconds,
        site_seconds=sum(one.cpu_seconds for one in measured.sites.values()) / len(measured.sites),
        gpu_seconds=measured.total.gpu_seconds,
        seconds_here=ended - begun,
        bytes_up=float(metrics["bytes_up"]),
        bytes_down=float(metrics["bytes_down"]),
        joules=compute_joules(measured, power),
        epsilon=None if planned is None else planned.epsilon,
    )


def extrapolate(measured: Cost, config: Config, *, sites: int, rounds: int) -> Cost:
    """Return what a run of so many sites and rounds would cost.

    Args:
        measured: One round.
        config: The resolved config; its noise stays what it is.
        sites: Sites asked in a round.
        rounds: Rounds.
    """
    factor = rounds * sites / measured.sites
    planned = compute_planned_cost(config, rounds)
    up, down = (
        rounds * _scale(total, config, measured.sites, sites, pair=pair)
        for total, pair in ((measured.bytes_up, PAIR_UP), (measured.bytes_down, PAIR_DOWN))
    )
    return Cost(
        sites=sites,
        rounds=rounds,
        cpu_seconds=measured.cpu_seconds * factor,
        site_seconds=measured.site_seconds * rounds,
        gpu_seconds=measured.gpu_seconds * factor,
        seconds_here=measured.seconds_here * factor,
        bytes_up=up,
        bytes_down=down,
        joules=None if measured.joules is None else measured.joules * factor,
        epsilon=None if planned is None else planned.epsilon,
    )


def render_cost(measured: Cost, planned: Cost, power: Power | None = None) -> RenderableType:
    """Return both as a table.

    Args:
        measured: One round.
        planned: The run.
        power: What the energy is assumed from; None: it was counted.
    """
    both = (measured, planned)
    rows = [
        [name, *(format_(getattr(cost, key)) for cost in both)]
        for name, key, format_ in (
            ("processor, all and coordinator", "cpu_seconds", format_seconds),
            ("processor, one site", "site_seconds", format_seconds),
            ("GPU, all sites", "gpu_seconds", format_seconds),
            ("a simulation, here", "seconds_here", format_seconds),
            ("sent up, all sites", "bytes_up", format_bytes),
            ("sent down, all sites", "bytes_down", format_bytes),
            ("epsilon", "epsilon", format_epsilon),
        )
        if key != "gpu_seconds" or measured.gpu_seconds
    ]
    shares = (format_bytes(cost.bytes_up / cost.sites) for cost in both)
    rows.append(["sent up, one site", *shares])
    source = "counted here" if power is None else f"at {power.watts:g} W a core"
    rows.append([f"energy, {source}", *(format_joules(cost.joules) for cost in both)])
    headers = [
        f"{format_count(cost.sites, 'site')}, {format_count(cost.rounds, 'round')}" for cost in both
    ]
    notes = "Sites that have as many records each as these; each on a machine such as this one."
    if measured.joules is None:
        notes += f"\n{UNKNOWN}"
    return Group(
        make_table(["", f"measured: {headers[0]}", f"estimated: {headers[1]}"], rows), notes
    )


def to_json(measured: Cost, planned: Cost) -> dict[str, Any]:
    """Return both as values that JSON can hold."""
    return {"measured": asdict(measured), "estimated": asdict(planned)}


def _scale(total: float, config: Config, sites: int, wanted: int, *, pair: int) -> float:
    """Return the bytes of a round of other sites: what is each one's own, and what is a pair's."""
    if config.secure_aggregation.mode != "protocol":
        return total * wanted / sites
    sums = 2 if sends_metrics(config) else 1
    shared = sums * pair * sites * _count_peers(config, sites)
    own = max(total - shared, 0.0) / sites
    return wanted * (own + sums * pair * _count_peers(config, wanted))


def _count_peers(config: Config, sites: int) -> int:
    """Return with how many others a site shares secrets."""
    if sites <= COMPLETE_UP_TO:
        return sites - 1
    section = config.secure_aggregation
    graph = plan_graph(
        sites, dropout_share=section.dropout_share, corrupt_share=section.corrupt_share
    )
    return graph.neighbours or sites - 1

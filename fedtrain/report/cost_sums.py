"""What a run cost, added up by site and over all; the same as one JSON object."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from fedtrain.costs import RoundCost, SiteCost, load_costs
from fedtrain.energy import Power, compute_joules, compute_share
from fedtrain.report.run import Run

COORDINATOR: Final = "coordinator"


@dataclass(frozen=True)
class SiteTotal:
    """What a site cost over all rounds.

    Attributes:
        rounds: In which it was asked.
        joules: Its share of the energy; None where that is not known.
    """

    name: str
    rounds: int
    cost: SiteCost
    joules: float | None


def build_costs(run: Run, power: Power | None = None) -> dict[str, Any]:
    """Return a run's costs as one JSON object; what was not measured is null."""
    costs = load_run_costs(run)
    by_round = {cost.round: cost for cost in costs}
    rounds = []
    for line in run.metrics:
        cost = by_round.get(int(line["round"]))
        told = {key: line.get(key) for key in ("round", "seconds", "bytes_down", "bytes_up")}
        rounds.append(told | _describe_round(cost, power))
    measured = is_measured(costs)
    sites = [
        {"site": one.name, "rounds": one.rounds}
        | _describe(one.cost, measured=measured)
        | {"joules": one.joules}
        for one in sum_sites(costs, power)
    ]
    counted = any(cost.joules is not None for cost in costs)
    return {
        "run": run.name,
        "rounds": rounds,
        "sites": sites,
        "energy_source": "assumed" if power else "counted" if counted else None,
        "power": asdict(power) if power else None,
    }


def sum_sites(costs: Sequence[RoundCost], power: Power | None = None) -> list[SiteTotal]:
    """Return what each site cost over all rounds, and last the coordinator, where it was timed."""
    found: dict[str, SiteTotal] = {}
    for cost in costs:
        sites: Mapping[str, SiteCost] = cost.sites
        if cost.coordinator_seconds is not None:
            sites = {**sites, COORDINATOR: SiteCost(cost.coordinator_seconds)}
        for name, part in sites.items():
            old = found.get(name, SiteTotal(name, 0, SiteCost(), 0.0))
            joules = compute_share(cost, part, power)
            both = None if joules is None or old.joules is None else old.joules + joules
            found[name] = SiteTotal(name, old.rounds + (cost.round > 0), old.cost + part, both)
    names = sorted(found, key=lambda name: (name == COORDINATOR, name))
    return [found[name] for name in names]


def sum_all(run: Run, power: Power | None = None) -> tuple[SiteCost, float | None] | None:
    """Return what a whole run cost and its energy; None where no processor time was measured."""
    costs = load_run_costs(run)
    if not is_measured(costs):
        return None
    sites = sum_sites(costs, power)
    joules = [one.joules for one in sites if one.joules is not None]
    total = sum((one.cost for one in sites), SiteCost())
    return total, sum(joules) if len(joules) == len(sites) else None


def load_run_costs(run: Run) -> list[RoundCost]:
    """Return the costs of the rounds that are committed."""
    return [cost for cost in load_costs(run.path) if cost.round <= run.rounds_done]


def is_measured(costs: Sequence[RoundCost]) -> bool:
    """Say whether processor time was measured: where sites are deployed, it is not."""
    return any(cost.coordinator_seconds is not None for cost in costs)


def _describe_round(cost: RoundCost | None, power: Power | None) -> dict[str, Any]:
    """Return the figures of a round that are measured beside the run."""
    if cost is None:
        return dict.fromkeys(("cpu_seconds", "gpu_seconds", "joules", "sites"))
    measured = cost.coordinator_seconds is not None
    whole = _describe(cost.total, measured=measured)
    sites = {
        name: _describe(one, measured=measured) | {"joules": compute_share(cost, one, power)}
        for name, one in cost.sites.items()
    }
    return {
        "cpu_seconds": whole["cpu_seconds"],
        "gpu_seconds": whole["gpu_seconds"],
        "joules": compute_joules(cost, power),
        "sites": sites,
    }


def _describe(cost: SiteCost, *, measured: bool) -> dict[str, Any]:
    return {
        "cpu_seconds": round(cost.cpu_seconds, 6) if measured else None,
        "gpu_seconds": round(cost.gpu_seconds, 6) if measured else None,
        "bytes_down": cost.bytes_down,
        "bytes_up": cost.bytes_up,
    }

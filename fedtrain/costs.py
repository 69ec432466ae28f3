"""What the rounds of a run cost, by site: processor and GPU seconds, bytes, energy.

`costs.jsonl` in a run directory, a line a round, written after the round's commit; round 0 is what
came before the first. It stands beside the run, not in it: no message carries these figures, no
report, seal, transcript or digest covers them, and the run goes on without the file.

How long a site trains depends on its records. In a simulation whoever runs it has all records, and
the figures are theirs: no guarantee of privacy covers them, so that the file is to be removed
before a run directory is handed on. A deployed site keeps its seconds to itself; the coordinator
writes down the bytes alone, which it sees anyway.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from fedtrain.errors import RunDirectoryError

COSTS: Final = "costs.jsonl"
_DIGITS: Final = 6


@dataclass(frozen=True)
class SiteCost:
    """What one site, or several together, cost.

    Attributes:
        cpu_seconds: Processor time of the site's work, over all threads.
        gpu_seconds: For how long its training and evaluation had a GPU, see
            `fedtrain.training.devices`.
        bytes_up: Vectors and messages of the protocol that it sent.
        bytes_down: Those that it was sent.
    """

    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0

    def __add__(self, other: Self) -> "SiteCost":
        """Return what both cost."""
        return SiteCost(
            self.cpu_seconds + other.cpu_seconds,
            self.gpu_seconds + other.gpu_seconds,
            self.bytes_up + other.bytes_up,
            self.bytes_down + other.bytes_down,
        )


@dataclass(frozen=True)
class RoundCost:
    """What one round cost.

    Attributes:
        round: The round; 0 is what came before the first.
        sites: By name, those that were asked.
        coordinator_seconds: Processor time of the coordinator; None where no processor time was
            measured, that of sites neither: they are deployed.
        joules: Energy of this machine's processor meanwhile; None where it cannot be read.
    """

    round: int
    sites: Mapping[str, SiteCost] = field(default_factory=dict)
    coordinator_seconds: float | None = None
    joules: float | None = None

    @property
    def total(self) -> SiteCost:
        """All sites and the coordinator."""
        return sum(self.sites.values(), SiteCost(self.coordinator_seconds or 0.0))


class CostMeter:
    """Adds up what sites cost until it is taken."""

    def __init__(self) -> None:
        self._sites: dict[str, SiteCost] = {}

    def add(self, site: str, cost: SiteCost) -> None:
        """Add to a site's."""
        self._sites[site] = self._sites.get(site, SiteCost()) + cost

    def take(self) -> dict[str, SiteCost]:
        """Return what each site cost since it was last taken, by name."""
        taken, self._sites = self._sites, {}
        return taken


def count_payload(content: Mapping[str, Any]) -> int:
    """Return the bytes of a message's vectors and of the protocol's messages in it.

    The config, which goes along, and frames are left out.

    Args:
        content: Records by name: of arrays, or of values.
    """
    total = 0
    for record in content.values():
        for value in record.values():
            if isinstance(value, bytes):
                total += len(value)
            elif hasattr(value, "dtype"):
                total += math.prod(value.shape) * np.dtype(value.dtype).itemsize
    return total


def append_cost(folder: Path, cost: RoundCost) -> None:
    """Write a round's line to a run directory.

    Raises:
        OSError: It cannot be written.
    """
    tree = {
        "round": cost.round,
        "sites": {name: _describe(one) for name, one in cost.sites.items()},
        "coordinator_seconds": _round(cost.coordinator_seconds),
        "joules": _round(cost.joules),
    }
    text = json.dumps(tree, allow_nan=False)
    with (folder / COSTS).open("a", encoding="utf-8") as file:
        file.write(f"{text}\n")


def load_costs(folder: Path) -> list[RoundCost]:
    """Read what the rounds of a run cost, in their order.

    A round that was run again counts once, as it ended; what came before the first round is added
    up over all sittings. A line that a kill tore is left out.

    Returns:
        One a round; none where the run has no such file.

    Raises:
        RunDirectoryError: The file cannot be read.
    """
    try:
        lines = (folder / COSTS).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise RunDirectoryError(f"{folder / COSTS}: cannot be read; remove it") from error
    rounds: dict[int, RoundCost] = {}
    for cost in filter(None, map(_read_line, lines)):
        before = rounds.get(0)
        rounds[cost.round] = _add(before, cost) if before and cost.round == 0 else cost
    return [rounds[number] for number in sorted(rounds)]


def _describe(cost: SiteCost) -> dict[str, float | int]:
    """Return a site's figures; `asdict` takes ten times as long."""
    return {
        "cpu_seconds": round(cost.cpu_seconds, _DIGITS),
        "gpu_seconds": round(cost.gpu_seconds, _DIGITS),
        "bytes_up": cost.bytes_up,
        "bytes_down": cost.bytes_down,
    }


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)


def _read_line(line: str) -> RoundCost | None:
    try:
        tree = json.loads(line)
        sites = {str(name): SiteCost(**values) for name, values in tree["sites"].items()}
        return RoundCost(int(tree["round"]), sites, tree["coordinator_seconds"], tree["joules"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _add(one: RoundCost, other: RoundCost) -> RoundCost:
    sites = {
        name: one.sites.get(name, SiteCost()) + other.sites.get(name, SiteCost())
        for name in sorted({*one.sites, *other.sites})
    }
    return RoundCost(
        one.round,
        sites,
        _add_known(one.coordinator_seconds, other.coordinator_seconds),
        _add_known(one.joules, other.joules),
    )


def _add_known(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other

"""Energy: what this machine's processor took, where the system counts it, or an assumed power's.

RAPL, by Linux's powercap interface: a counter in microjoules for each processor package, of Intel's
and AMD's. Since Linux 5.10 only root may read it, and virtual machines have none.

References:
    * Linux kernel documentation, "Power Capping Framework".
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fedtrain.costs import RoundCost, SiteCost
from fedtrain.errors import ConfigError

POWERCAP: Final = Path("/sys/class/powercap")
_MICRO: Final = 1e-6


class EnergyCounter:
    """Says how much energy the processor took since it was last asked.

    All that ran on the machine meanwhile is in it; GPUs and memory outside of the package are not.
    """

    def __init__(self, folder: Path = POWERCAP) -> None:
        """Begin to count.

        Args:
            folder: Of the counters, `intel-rapl:0` and so on.
        """
        self._packages = sorted(folder.glob("intel-rapl:[0-9]*"))
        self._packages = [path for path in self._packages if path.name.count(":") == 1]
        self._last = self._read()

    def take(self) -> float | None:
        """Return the joules since this was last called; None where no counter can be read."""
        before, self._last = self._last, self._read()
        if before is None or self._last is None:
            return None
        joules = 0.0
        for path, start, end in zip(self._packages, before, self._last, strict=True):
            if end < start:  # it begins anew at its largest value
                end += _read_number(path / "max_energy_range_uj") or 0
            joules += max(end - start, 0) * _MICRO
        return joules

    def _read(self) -> list[int] | None:
        """Return the counter of each package; None where there is none, or one is not ours."""
        values = [_read_number(path / "energy_uj") for path in self._packages]
        known = [value for value in values if value is not None]
        return known if known and len(known) == len(values) else None


@dataclass(frozen=True)
class Power:
    """What a machine is assumed to take, where its energy was not counted.

    Attributes:
        watts: Of a processor core at work.
        gpu_watts: Of a GPU at work.
    """

    watts: float
    gpu_watts: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what no machine takes.

        Raises:
            ConfigError: A power is not above 0, or not finite.
        """
        if not (0 < self.watts < math.inf and 0 <= self.gpu_watts < math.inf):
            raise ConfigError(
                f"--watts {self.watts:g}, --gpu-watts {self.gpu_watts:g}: watts of a core must be"
                " above 0, those of a GPU at least 0; a server's core takes about 10"
            )

    def compute_joules(self, cost: SiteCost) -> float:
        """Return the energy of so many seconds."""
        return self.watts * cost.cpu_seconds + self.gpu_watts * cost.gpu_seconds


def compute_joules(cost: RoundCost, power: Power | None = None) -> float | None:
    """Return the energy of a round: by an assumed power, else as it was counted.

    Returns:
        Joules; None where none was counted, or sites' seconds are not known.
    """
    if power is None:
        return cost.joules
    return None if cost.coordinator_seconds is None else power.compute_joules(cost.total)


def compute_share(cost: RoundCost, part: SiteCost, power: Power | None = None) -> float | None:
    """Return the energy of a part of a round: by an assumed power, else by processor seconds.

    Args:
        cost: The round.
        part: A site's, or the coordinator's.
        power: Assumed; None shares out what was counted.
    """
    if power is not None:
        return None if cost.coordinator_seconds is None else power.compute_joules(part)
    if cost.joules is None:
        return None
    total = cost.total.cpu_seconds
    return cost.joules * part.cpu_seconds / total if total else 0.0


def _read_number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None

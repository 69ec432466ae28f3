"""The energy that this machine's processor takes, where the system counts it.

RAPL, by Linux's powercap interface: a counter in microjoules for each processor package, of Intel's
and AMD's. Since Linux 5.10 only root may read it, and virtual machines have none.

References:
    * Linux kernel documentation, "Power Capping Framework".
"""

from pathlib import Path
from typing import Final

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


def _read_number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None

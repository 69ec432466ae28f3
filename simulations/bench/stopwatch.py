"""What is measured of a contender, from inside its process: times of rounds, peak memory."""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

_PROC = Path("/proc")


@dataclass
class Stopwatch:
    """Is told of the end of each round.

    The first round is start-up: what is timed lies between the ends of two rounds. Memory is read
    at the end of the last, while child processes still live.

    Attributes:
        rounds: Rounds to time; one more is to be run.
        seconds: What each took.
        memory: Peak bytes, see `read_peak_memory`; None until the end.
    """

    rounds: int
    seconds: list[float] = field(default_factory=list)
    memory: int | None = None
    _last: float | None = None

    @property
    def total(self) -> int:
        """Rounds to run."""
        return self.rounds + 1

    def tick(self) -> None:
        """Take the end of a round."""
        now = time.perf_counter()
        if self._last is not None:
            self.seconds.append(now - self._last)
        if len(self.seconds) == self.rounds:
            self.memory = read_peak_memory()
        self._last = time.perf_counter()


def read_peak_memory() -> int | None:
    """Return the sum of the peak resident bytes of this process and those that it started.

    Memory that processes share counts once for each. None where there is no `/proc`.
    """
    parents = {pid: parent for pid in _list_processes() if (parent := _read_parent(pid))}
    try:
        family = {int((_PROC / "self").resolve().name)}
    except (OSError, ValueError):
        return None
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(_read_peak(pid) for pid in family)


def read_memory(pid: int | None = None, *, peak: bool = False) -> int | None:
    """Return a process's resident bytes, or their peak; None where there is no `/proc`.

    Args:
        pid: The process; None is this one.
        peak: Whether the peak is wanted.
    """
    value = _read_status(pid or os.getpid(), "VmHWM" if peak else "VmRSS")
    return 1024 * int(value.removesuffix("kB")) if value else None


def reset_peak_memory(pid: int | None = None) -> bool:
    """Let the peak start from what is resident now; say whether the system can."""
    try:
        (_PROC / str(pid or "self") / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def read_processor_seconds(pid: int) -> float | None:
    """Return the processor seconds that a process has used, all threads; None without `/proc`."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:  # it has just ended
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _list_processes() -> list[int]:
    return [int(path.name) for path in _PROC.glob("[0-9]*")] if _PROC.is_dir() else []


def _read_parent(pid: int) -> int | None:
    value = _read_status(pid, "PPid")
    return int(value) if value else None


def _read_peak(pid: int) -> int:
    value = _read_status(pid, "VmHWM")
    return 1024 * int(value.removesuffix("kB")) if value else 0


def _read_status(pid: int, key: str) -> str | None:
    try:
        text = (_PROC / str(pid) / "status").read_text(encoding="utf-8", errors="replace")
    except OSError:  # it has just ended
        return None
    for line in text.splitlines():
        if line.startswith(f"{key}:"):
            return line.partition(":")[2].strip()
    return None

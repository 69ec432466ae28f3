"""Times the contenders, each in fresh processes, in turn, so that a disturbance meets them all."""

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fedtrain.errors import RunFailedError

TIMEOUT: Final = 1800.0


@dataclass(frozen=True)
class Entry:
    """A contender in the table.

    Attributes:
        title: Its name.
        reference: `module:function` in this package.
        needs: Packages without which it is left out.
    """

    title: str
    reference: str
    needs: tuple[str, ...] = ()


ENTRIES: Final = {
    "bare": Entry("bare PyTorch loop", "contenders:run_bare"),
    "ours-1": Entry("fedtrain, 1 worker", "contenders:run_ours_with_one_worker"),
    "ours-2": Entry("fedtrain, 2 workers", "contenders:run_ours_with_two_workers"),
    "pfl": Entry("pfl, 2 processes", "rivals:run_pfl", ("pfl",)),
    "flower-ray": Entry("Flower on Ray, 2 actors", "rivals:run_flower_on_ray", ("ray",)),
}


@dataclass(frozen=True)
class Measurement:
    """What was measured of one contender.

    Attributes:
        contender: Key of `ENTRIES`.
        seconds: Each timed round, over all repeats; empty where it did not run.
        memory: Peak bytes of its processes, the largest over repeats.
        reason: Why it did not run.
    """

    contender: str
    seconds: tuple[float, ...] = ()
    memory: int | None = None
    reason: str | None = None

    @property
    def median(self) -> float:
        """Median over rounds, in seconds."""
        return statistics.median(self.seconds)


def measure(workload: str, *, rounds: int, repeats: int) -> list[Measurement]:
    """Time every contender that is installed.

    Args:
        workload: Key of `workloads.WORKLOADS`.
        rounds: Rounds to time in a process.
        repeats: Processes for each contender, one after another in turn.

    Returns:
        One measurement for each of `ENTRIES`, in order.
    """
    found: dict[str, list[Measurement]] = {name: [] for name in ENTRIES}
    for _ in range(repeats):
        for name, runs in found.items():
            if not runs or runs[-1].reason is None:
                runs.append(_measure_once(name, workload, rounds))
    return [_join(name, runs) for name, runs in found.items()]


def run_contender(name: str, workload: str, rounds: str, result: str) -> None:
    """Run one contender in this process and write what was measured to a file."""
    from .stopwatch import Stopwatch

    module_name, _, function_name = ENTRIES[name].reference.partition(":")
    module = importlib.import_module(f".{module_name}", __package__)
    function: Callable[[str, Stopwatch], None] = getattr(module, function_name)
    stopwatch = Stopwatch(int(rounds))
    function(workload, stopwatch)
    tree = {"seconds": stopwatch.seconds, "memory": stopwatch.memory}
    Path(result).write_text(json.dumps(tree), encoding="utf-8")


def _measure_once(name: str, workload: str, rounds: int) -> Measurement:
    missing = [need for need in ENTRIES[name].needs if importlib.util.find_spec(need) is None]
    if missing:
        return Measurement(
            name, reason=f"{missing[0]} is not installed; see the extra 'bench' in pyproject.toml"
        )
    with tempfile.TemporaryDirectory(prefix="fedtrain-bench-") as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, "-m", str(__package__), name, workload, str(rounds), str(result)]
        # The child finds this package where this process found it.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=TIMEOUT
            )
        except subprocess.TimeoutExpired:
            return Measurement(name, reason=f"not done after {TIMEOUT:.0f} s")
        if done.returncode or not result.exists():
            return _fail(name, done.stderr)
        tree = json.loads(result.read_text(encoding="utf-8"))
    return Measurement(name, tuple(tree["seconds"]), tree["memory"])


def _fail(name: str, stderr: str) -> Measurement:
    """Say that a rival failed; what this project brings itself may not."""
    last = (stderr.strip().splitlines() or ["no message"])[-1]
    if not ENTRIES[name].needs:
        raise RunFailedError(f"the benchmark's own '{name}' failed: {last}")
    return Measurement(name, reason=f"failed: {last[:200]}")


def _join(name: str, runs: Sequence[Measurement]) -> Measurement:
    seconds = tuple(second for run in runs for second in run.seconds)
    memory = max((run.memory for run in runs if run.memory is not None), default=None)
    return Measurement(name, seconds, memory, None if seconds else runs[-1].reason)

"""Times round trips of a deployed federation on loopback, beside the floor, in turn."""

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .link_federation import Federation, make_environment, make_federation
from .link_round import Centre, LinkRound, starting

MEGABYTE: Final = 1_000_000
SIZES: Final = (0, 1, 10, 100)  # megabytes
SITES: Final = 10
_LEAST: Final = 8  # bytes of an empty round of the floor: how many follow
_STOP_SECONDS: Final = 20.0
FLOOR: Final = "floor"
OURS: Final = "fedtrain"


@dataclass(frozen=True)
class LinkMeasurement:
    """Round trips of one size.

    Attributes:
        contender: Who made them.
        size: Bytes of the model; 0 is an empty round.
        rounds: Those that were timed.
    """

    contender: str
    size: int
    rounds: tuple[LinkRound, ...]

    @property
    def seconds(self) -> float:
        """Median over rounds."""
        return statistics.median(one.seconds for one in self.rounds)


def measure_link(
    sizes: Sequence[int], *, sites: int, rounds: int, folder: Path | None = None
) -> list[LinkMeasurement]:
    """Time round trips; the first of each size is not counted.

    Args:
        sizes: Megabytes; 0 is an empty round.
        sites: Processes.
        rounds: Of each size, a tenth as many from 10 MB on, but 3 at least.
        folder: Where the federation's folders are made; default: of temporary files.

    Raises:
        RunFailedError: A contender failed.
    """
    with tempfile.TemporaryDirectory(prefix="fedtrain-bench-", dir=folder) as path:
        federation = make_federation(Path(path), sites=sites)
        with running_agents(federation) as pids, _centres(federation, pids) as centres:
            return [
                found
                for size in sizes
                for found in _measure_size(centres, size * MEGABYTE, rounds=rounds)
            ]


def _measure_size(
    centres: dict[str, Centre], size: int, *, rounds: int
) -> Iterator[LinkMeasurement]:
    count = rounds if size < 10 * MEGABYTE else max(3, rounds // 10)
    found: dict[str, list[LinkRound]] = {name: [] for name in centres}
    for _ in range(count + 1):
        for name, centre in centres.items():
            found[name].append(centre.run_round(size or (_LEAST if name == FLOOR else 0)))
    for name, measured in found.items():
        yield LinkMeasurement(name, size, tuple(measured[1:]))


@contextmanager
def _centres(federation: Federation, pids: Sequence[int]) -> Iterator[dict[str, Centre]]:
    package, environment = str(__package__), make_environment()
    python = [sys.executable, "-m"]
    folders = [str(federation.get_folder(site)) for site in federation.sites]
    port = federation.address.rpartition(":")[2]
    floor = [*python, f"{package}.link_floor", "serve", str(federation.coordinator), *folders]
    ours = [
        *python,
        f"{package}.link_coordinator",
        str(federation.coordinator),
        port,
        *map(str, pids),
    ]
    with (
        starting(FLOOR, floor, environment) as floor_centre,
        starting(OURS, ours, environment) as ours_centre,
    ):
        yield {FLOOR: floor_centre, OURS: ours_centre}


@contextmanager
def running_agents(federation: Federation) -> Iterator[list[int]]:
    """Keep the agent of each site running; yield their processes' ids."""
    processes, environment = [], make_environment()
    try:
        for site in federation.sites:
            folder = federation.get_folder(site)
            command = [sys.executable, "-m", f"{__package__}.link_site", str(folder)]
            with (folder / "bench.txt").open("w", encoding="utf-8") as log:
                processes.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

"""Times round trips of a deployed federation on loopback, beside the floor, in turn."""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..demo.deploy import run_command
from .link_federation import Federation, make_environment, make_federation
from .link_round import Centre, LinkRound, starting

MEGABYTE: Final = 1_000_000
SIZES: Final = (0, 1, 10, 100)  # megabytes
SITES: Final = 10
_LEAST: Final = 8  # bytes of an empty round of the floor: how many follow
_STOP_SECONDS: Final = 20.0
FLOOR: Final = "floor"
OURS: Final = "fedtrain"
SECURE: Final = "secure"


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

    @property
    def work(self) -> float:
        """Processor seconds of both ends a round, the mean: the system counts them coarsely."""
        return statistics.fmean(one.work for one in self.rounds)


@dataclass(frozen=True)
class LinkFindings:
    """What was measured.

    Attributes:
        trips: Round trips, the floor's and the federation's of each size.
        secure: Seconds of each round of a run with secure aggregation, the first left out.
    """

    trips: tuple[LinkMeasurement, ...]
    secure: tuple[float, ...]


def measure_link(
    sizes: Sequence[int], *, sites: int, rounds: int, secure_rounds: int, folder: Path | None = None
) -> LinkFindings:
    """Time round trips, and rounds of a run; the first of each is not counted.

    Args:
        sizes: Megabytes; 0 is an empty round.
        sites: Processes.
        rounds: Of each size; from 10 MB on a tenth as many, but 3 at least.
        secure_rounds: Of a run with secure aggregation; 0 for none.
        folder: Where the federation's folders are made; default: where temporary files are.

    Raises:
        RunFailedError: A contender failed.
    """
    with tempfile.TemporaryDirectory(prefix="fedtrain-bench-", dir=folder) as path:
        federation = make_federation(Path(path), sites=sites)
        with running_agents(federation) as pids, _centres(federation, pids) as centres:
            trips = [
                found
                for size in sizes
                for found in _measure_size(centres, size * MEGABYTE, rounds=rounds)
            ]
            secure = _measure_secure(federation, secure_rounds) if secure_rounds else ()
    return LinkFindings(tuple(trips), secure)


def _measure_secure(federation: Federation, rounds: int) -> tuple[float, ...]:
    """Return what each round of a small run took, as its own metrics say."""
    scenario = federation.write_scenario(rounds=rounds + 1)
    said = run_command("server", "run", scenario, "--as", federation.admin, "--wait")
    metrics = federation.coordinator / "runs" / said.splitlines()[-1] / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    return tuple(float(line["seconds"]) for line in lines[1:])


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

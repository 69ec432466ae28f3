"""One measured round trip, and the process that measures it on command.

Each contender's centre is a process that reads sizes from its standard input, a line each, and
answers each with one line of JSON: so the contenders take their rounds in turn, and a disturbance
meets all of them.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from fedtrain.errors import RunFailedError

from .link_wire import count_wire_bytes
from .stopwatch import read_memory, read_processor_seconds, reset_peak_memory

_STOP_SECONDS = 30.0


@dataclass(frozen=True)
class LinkRound:
    """A round trip to all sites and back.

    Attributes:
        seconds: On the clock.
        cpu: Processor seconds of the centre, all threads.
        wire: Bytes on the wire, both ways, at the centre; None where the system does not say.
        memory: Peak resident bytes of the centre.
        memory_before: Its resident bytes before.
        site_memory: Peak resident bytes of the largest site.
        site_cpu: Processor seconds of all sites together.
    """

    seconds: float
    cpu: float
    wire: int | None
    memory: int
    memory_before: int
    site_memory: int
    site_cpu: float

    @property
    def work(self) -> float:
        """Processor seconds of both ends."""
        return self.cpu + self.site_cpu


def serve_rounds(exchange: Callable[[int], None], *, port: int, pids: Sequence[int]) -> None:
    """Measure a round for each line of the standard input, until it ends.

    Args:
        exchange: Takes a size through one round trip.
        port: Where the centre listens.
        pids: Processes of the sites.
    """
    _say({"ready": True})
    for line in sys.stdin:
        _say(asdict(_measure(exchange, int(line), port=port, pids=pids)))


def _measure(
    exchange: Callable[[int], None], size: int, *, port: int, pids: Sequence[int]
) -> LinkRound:
    for pid in pids:
        reset_peak_memory(pid)
    has_peak = reset_peak_memory()
    site_cpu = _sum_processor_seconds(pids)
    memory, wire = read_memory() or 0, count_wire_bytes(port)
    cpu, started = time.process_time(), time.perf_counter()
    exchange(size)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    after = count_wire_bytes(port)
    return LinkRound(
        seconds=seconds,
        cpu=cpu,
        wire=None if wire is None or after is None else after - wire,
        memory=read_memory(peak=has_peak) or 0,
        memory_before=memory,
        site_cpu=_sum_processor_seconds(pids) - site_cpu,
        site_memory=max((read_memory(pid, peak=True) or 0 for pid in pids), default=0),
    )


def _sum_processor_seconds(pids: Sequence[int]) -> float:
    return sum(read_processor_seconds(pid) or 0.0 for pid in pids)


class Centre:
    """A contender's centre, in its process."""

    def __init__(self, title: str, process: "subprocess.Popen[str]") -> None:
        self._title = title
        self._process = process
        self._read()

    def run_round(self, size: int) -> LinkRound:
        """Return what a round of some bytes took.

        Raises:
            RunFailedError: The contender failed.
        """
        if self._process.stdin is None:
            raise RuntimeError("the centre takes no commands")
        self._process.stdin.write(f"{size}\n")
        self._process.stdin.flush()
        return LinkRound(**self._read())

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not line:
            raise RunFailedError(f"the benchmark's '{self._title}' ended in the middle")
        tree: dict[str, Any] = json.loads(line)
        return tree


@contextmanager
def starting(title: str, command: Sequence[str], environment: dict[str, str]) -> Iterator[Centre]:
    """Run a contender's centre until the end of the block."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        yield Centre(title, process)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _say(tree: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(tree) + "\n")
    sys.stdout.flush()

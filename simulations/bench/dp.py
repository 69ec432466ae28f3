"""Times a step of DP-SGD by every contender, in turn, in a process for each model and batch.

Each process is started twice: as it is, and with a C library that keeps freed memory
(`MALLOC_MMAP_THRESHOLD_`, `MALLOC_TRIM_THRESHOLD_`), which alone makes some contenders several
times faster.
"""

import contextlib
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from fedtrain.errors import RunFailedError

from .stopwatch import read_memory, reset_peak_memory

BATCHES: Final = (32, 256)
ALLOCATORS: Final[dict[str, dict[str, str]]] = {
    "default": {},
    "keeping": {
        "MALLOC_MMAP_THRESHOLD_": str(2**32),
        "MALLOC_TRIM_THRESHOLD_": str(2**33),
    },
}
TIMEOUT: Final = 900.0
_WARM_UP: Final = 2
_LEAST_TURNS: Final = 3
_MOST_TURNS: Final = 400


@dataclass(frozen=True)
class DpMeasurement:
    """What was measured of one contender on one model and batch.

    Attributes:
        model: Key of `dp_models.CASES`.
        batch: Records in a step.
        allocator: Key of `ALLOCATORS`.
        contender: Key of `dp_contenders.CONTENDERS`.
        milliseconds: Median of a step; None where it did not run.
        least: Shortest step.
        steps: How many were timed.
        memory: Bytes that a step needs beyond model, batch and libraries; None if unknown.
        reason: Why it did not run.
    """

    model: str
    batch: int
    allocator: str
    contender: str
    milliseconds: float | None = None
    least: float | None = None
    steps: int = 0
    memory: int | None = None
    reason: str | None = None


def measure_dp(
    models: Sequence[str], batches: Sequence[int], *, seconds: float
) -> Iterator[DpMeasurement]:
    """Measure every contender on every model, batch and allocator.

    Args:
        models: Keys of `dp_models.CASES`.
        batches: Records in a step.
        seconds: How long to time each combination; at least three turns.
    """
    for model in models:
        for batch in batches:
            for allocator in ALLOCATORS:
                yield from _start_child(model, batch, allocator, seconds)


def run_row(model: str, batch: str, allocator: str, seconds: str, result: str) -> None:
    """Measure one combination in this process, write the results to a file."""
    import torch

    from .dp_contenders import CONTENDERS, load_opacus

    torch.set_num_threads(1)
    load_opacus()  # before processes are forked, so that it is not counted as a step's memory
    _run_small(model)
    memories = {name: _run_forked(name, model, int(batch)) for name in CONTENDERS}
    found = _time_in_turn(model, int(batch), float(seconds))
    rows = [
        asdict(
            DpMeasurement(
                model,
                int(batch),
                allocator,
                name,
                milliseconds=1e3 * statistics.median(times) if times else None,
                least=1e3 * min(times) if times else None,
                steps=len(times),
                memory=memories[name] if times else None,
                reason=reason,
            )
        )
        for name, (times, reason) in found.items()
    ]
    Path(result).write_text(json.dumps(rows), encoding="utf-8")


def _run_small(model: str) -> None:
    """Run every contender on two records, for what libraries take at their first use."""
    from .dp_contenders import CONTENDERS

    for _, make in CONTENDERS.values():
        with contextlib.suppress(Exception):
            make(model, 2)()


def _time_in_turn(
    model: str, batch: int, seconds: float
) -> dict[str, tuple[list[float], str | None]]:
    from .dp_contenders import CONTENDERS, Step

    steps: dict[str, Step] = {}
    found: dict[str, tuple[list[float], str | None]] = {}
    for name, (_, make) in CONTENDERS.items():
        try:
            step = make(model, batch)
            for _ in range(_WARM_UP):
                step()
            steps[name], found[name] = step, ([], None)
        except Exception as error:  # whatever a rival raises is its result
            if name.startswith(("plain", "ours")):
                raise
            found[name] = [], f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
    gc.collect()
    end = time.perf_counter() + seconds
    for turn in range(_MOST_TURNS):
        if turn >= _LEAST_TURNS and time.perf_counter() > end:
            break
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            found[name][0].append(time.perf_counter() - start)
    return found


def _run_forked(name: str, model: str, batch: int) -> int | None:
    """Return the extra peak memory of a contender's steps, from a process that did nothing else."""
    from .dp_contenders import CONTENDERS

    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            os.close(reader)
            step = CONTENDERS[name][1](model, batch)
            before = read_memory()
            if before is not None and reset_peak_memory():
                for _ in range(_WARM_UP):
                    step()
                os.write(writer, str((read_memory(peak=True) or before) - before).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return int(answer) if answer else None


def _start_child(model: str, batch: int, allocator: str, seconds: float) -> list[DpMeasurement]:
    with tempfile.TemporaryDirectory(prefix="fedtrain-bench-") as folder:
        result = Path(folder) / "result.json"
        arguments = ["dp", model, str(batch), allocator, str(seconds), str(result)]
        environment = os.environ | ALLOCATORS[allocator]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        done = subprocess.run(
            [sys.executable, "-m", str(__package__), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        if done.returncode or not result.exists():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise RunFailedError(f"the benchmark of '{model}' at batch {batch} failed: {last}")
        rows: list[dict[str, Any]] = json.loads(result.read_text(encoding="utf-8"))
    return [DpMeasurement(**row) for row in rows]

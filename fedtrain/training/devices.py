"""Where a model is computed: on the CPU, or a GPU that is there; and for how long it was."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fedtrain.config import Config
from fedtrain.errors import ConfigError

CPU = torch.device("cpu")


def find_device(config: Config) -> torch.device:
    """Return where to train and evaluate.

    `auto` is a GPU where there is one and no record is protected. Workers of a simulation share
    it. The noise of DP-SGD is drawn and added on the CPU, which therefore computes all of it.

    Raises:
        ConfigError: The device is not there, or records are protected.
    """
    wanted = config.simulation.device or "cpu"
    there = {"cpu": True, "cuda": torch.cuda.is_available()}
    there["mps"] = torch.backends.mps.is_available()
    if wanted == "auto":
        found = [name for name in ("cuda", "mps") if there[name]]
        return torch.device(found[0] if found and not config.privacy.covers_records else "cpu")
    if not there[wanted]:
        raise ConfigError(f"simulation.device = '{wanted}' is not on this machine; set 'auto'")
    if wanted != "cpu" and config.privacy.covers_records:
        raise ConfigError(
            f"simulation.device = '{wanted}' has no DP-SGD, whose noise is drawn on the CPU, under"
            f" privacy.unit = '{config.privacy.unit}'; set 'cpu'"
        )
    return torch.device(wanted)


class _Clock:
    """For how long this process had a GPU at work, so far."""

    seconds = 0.0


@contextmanager
def occupying(device: torch.device) -> Iterator[None]:
    """Count the time until a GPU has done all it was told; a CPU's is not counted here.

    The pauses between its kernels are in it, and where workers share a GPU, what it did for the
    others meanwhile: it is the time for which the work had a GPU, not how busy that was.
    """
    if device.type == "cpu":
        yield
        return
    _synchronise(device)
    started = time.perf_counter()
    try:
        yield
    finally:
        _synchronise(device)
        _Clock.seconds += time.perf_counter() - started


def read_gpu_seconds() -> float:
    """Return for how long this process had a GPU so far, as `time.process_time` of a CPU."""
    return _Clock.seconds


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()

"""The contenders that are always there: a bare PyTorch loop, and this project's own simulation."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from fedtrain.config import Config, build_config
from fedtrain.resolution import resolve

from ..opening import open_config
from ..simulate import simulate, start
from .stopwatch import Stopwatch
from .workloads import CLASSES, SEED, WORKLOADS, build, load_clients, to_floats

Contender = Callable[[str, Stopwatch], None]


def run_bare(name: str, stopwatch: Stopwatch) -> None:
    """Run federated averaging as one writes it by hand: one process, one thread, no messages."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    workload = WORKLOADS[name]
    pixels, labels = load_clients(name)
    model = build(name)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    for _ in range(stopwatch.total):
        total = {key: torch.zeros_like(value) for key, value in state.items()}
        for client in torch.randperm(workload.clients)[: workload.cohort].tolist():
            model.load_state_dict(state)
            optimiser = torch.optim.SGD(model.parameters(), lr=workload.learning_rate)
            features, targets = to_floats(pixels[client]), labels[client]
            for batch in torch.split(torch.randperm(workload.records), workload.batch_size):
                optimiser.zero_grad()
                loss = functional.cross_entropy(model(features[batch]), targets[batch])
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
            for key, value in model.state_dict().items():
                total[key] += value
        state = {key: value / workload.cohort for key, value in total.items()}
        stopwatch.tick()


def run_ours(name: str, stopwatch: Stopwatch, *, workers: int) -> None:
    """Run a simulation as `fedtrain simulate` does, commits of the run directory included."""
    config = resolve(make_config(name, rounds=stopwatch.total, workers=workers))
    with tempfile.TemporaryDirectory(prefix="fedtrain-bench-") as folder:
        simulate(start(open_config(config), Path(folder) / "run"), _Observer(stopwatch))


def run_ours_with_one_worker(name: str, stopwatch: Stopwatch) -> None:
    """See `run_ours`."""
    run_ours(name, stopwatch, workers=1)


def run_ours_with_two_workers(name: str, stopwatch: Stopwatch) -> None:
    """See `run_ours`."""
    run_ours(name, stopwatch, workers=2)


def make_config(name: str, *, rounds: int, workers: int) -> Config:
    """Return a workload as a scenario."""
    workload = WORKLOADS[name]
    module = build.__module__
    sections: dict[str, Any] = {
        "run": {"name": f"bench-{name}", "seed": SEED},
        "data": {
            "source": f"{module}:load_records",
            "path": name,
            "preparation": "bounds",
            "bounds": {"x": [0.0, 255.0]},
            "classes": [str(label) for label in range(CLASSES)],
            "validation_fraction": 0.0,
            "test_fraction": 0.0,
        },
        "partition": {"scheme": "iid", "sites": workload.clients},
        "model": {"name": f"{module}:{workload.model}"},
        "training": {
            "learning_rate": workload.learning_rate,
            "batch_size": workload.batch_size,
            "local_epochs": 1,
        },
        "federation": {
            "rounds": rounds,
            "sites_per_round": workload.cohort,
            "evaluate_every": 0,
        },
        "simulation": {"workers": workers},
    }
    if "secure_aggregation" in Config.model_fields:
        sections["secure_aggregation"] = {"mode": "off"}  # the other contenders have none
    return build_config(sections)


class _Observer:
    """Hands the end of each round to the stopwatch: it is told after the commit."""

    def __init__(self, stopwatch: Stopwatch) -> None:
        self._stopwatch = stopwatch

    def on_start(self, *, rounds: int, done: int, sites: int) -> None:
        pass

    def on_round(self, metrics: Mapping[str, float]) -> None:  # noqa: ARG002 - an observer's
        self._stopwatch.tick()

    def close(self) -> None:
        pass

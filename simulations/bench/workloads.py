"""What is timed: data and models of each workload, equal for every contender.

Pixels are random bytes, held once and turned into floats when a client's turn comes, so that a
thousand clients of images take 150 MB and not 600.

Shapes: c clients, n records of a client.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

CLASSES: Final = 10
SEED: Final = 0


@dataclass(frozen=True)
class Workload:
    """The size of a federation.

    Attributes:
        title: One line for the table.
        clients: c.
        cohort: Clients a round.
        records: n, the same at every client.
        shape: Shape of a record.
        model: Name of the function in this module that builds the model.
        rounds: Rounds to time in one process.
    """

    title: str
    clients: int
    cohort: int
    records: int
    shape: tuple[int, ...]
    model: str
    rounds: int
    batch_size: int = 10
    learning_rate: float = 0.03


WORKLOADS: Final = {
    "a": Workload(
        title="logistic regression, 7,850 parameters; 10 of 1,000 clients a round, 60 records each",
        clients=1000,
        cohort=10,
        records=60,
        shape=(784,),
        model="build_logistic",
        rounds=400,
    ),
    "b": Workload(
        title="CNN, 1,626,442 parameters; 50 of 1,000 clients a round, 50 images 3x32x32 each",
        clients=1000,
        cohort=50,
        records=50,
        shape=(3, 32, 32),
        model="build_cnn",
        rounds=3,
    ),
    "smoke": Workload(
        title="a few records, to see that the benchmark runs; its figures mean nothing",
        clients=4,
        cohort=2,
        records=6,
        shape=(4,),
        model="build_logistic",
        rounds=2,
        batch_size=3,
    ),
}


def load_records(name: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the pixels `(c * n, *shape)` and labels `(c * n,)` of a workload."""
    workload = WORKLOADS[name]
    generator = np.random.default_rng(SEED)
    count = workload.clients * workload.records
    pixels = generator.integers(0, 256, (count, *workload.shape), dtype=np.uint8)
    return pixels, np.arange(count, dtype=np.int64) % CLASSES


def load_clients(name: str) -> tuple[Tensor, Tensor]:
    """Return the pixels `(c, n, *shape)` uint8 and labels `(c, n)` of a workload's clients."""
    workload = WORKLOADS[name]
    pixels, labels = load_records(name)
    shape = (workload.clients, workload.records)
    return torch.from_numpy(pixels).view(*shape, *workload.shape), torch.from_numpy(labels).view(
        shape
    )


def to_floats(pixels: Tensor) -> Tensor:
    """Return pixels in [0, 1], float32."""
    return pixels.float().div_(255)


def build(name: str) -> nn.Module:
    """Return a workload's model."""
    function: Callable[..., nn.Module] = globals()[WORKLOADS[name].model]
    return function(input_shape=WORKLOADS[name].shape)


def build_logistic(*, input_shape: tuple[int, ...], **_: Any) -> nn.Module:
    """Return logistic regression."""
    return nn.Linear(input_shape[0], CLASSES)


def build_cnn(*, input_shape: tuple[int, ...], **_: Any) -> nn.Module:
    """Return the CNN of pfl's CIFAR-10 benchmark."""
    return nn.Sequential(
        nn.Conv2d(input_shape[0], 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 14 * 14, 128),
        nn.ReLU(),
        nn.Linear(128, CLASSES),
    )

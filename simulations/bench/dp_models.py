"""Models and batches on which steps of DP-SGD are timed, equal for every contender.

Shapes: n records.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

import torch
from torch import Tensor, nn

from .workloads import build_cnn

CLASSES: Final = 10
TOKENS: Final = 64
STEPS: Final = 32
WIDTH: Final = 64

Recurrent = Callable[..., nn.Module]
Attention = Callable[..., nn.Module]


@dataclass(frozen=True)
class Case:
    """A model to time.

    Attributes:
        title: Its name in the table.
        build: Makes it from the class of its LSTM and of its attention; most need neither.
        shape: Shape of a record.
        is_discrete: Whether records are ids.
    """

    title: str
    build: Callable[[Recurrent, Attention], nn.Module]
    shape: tuple[int, ...]
    is_discrete: bool = False


class Lstm(nn.Module):
    """One LSTM layer and a linear one on its last output."""

    def __init__(self, recurrent: Recurrent) -> None:
        super().__init__()
        self.lstm = recurrent(32, WIDTH, batch_first=True)
        self.output = nn.Linear(WIDTH, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits `(n, CLASSES)` of `(n, STEPS, 32)`."""
        outputs, _ = self.lstm(inputs)
        return cast("Tensor", self.output(outputs[:, -1]))


class Block(nn.Module):
    """A transformer's block, normalised before each half."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = attention(WIDTH, 4, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return `(n, STEPS, WIDTH)` of the same."""
        normal = self.norm1(inputs)
        inputs = inputs + self.attention(normal, normal, normal, need_weights=False)[0]
        hidden = torch.relu(self.linear1(self.norm2(inputs)))
        return inputs + cast("Tensor", self.linear2(hidden))


class Transformer(nn.Module):
    """Two blocks over embedded tokens and positions; the mean of positions is classified."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(TOKENS, WIDTH), nn.Embedding(STEPS, WIDTH)
        self.blocks = nn.Sequential(Block(attention), Block(attention))
        self.norm, self.output = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits `(n, CLASSES)` of `(n, STEPS)`."""
        places = torch.arange(ids.shape[1]).expand_as(ids)
        hidden = self.blocks(self.tokens(ids) + self.positions(places))
        return cast("Tensor", self.output(self.norm(hidden).mean(1)))


def build_small_cnn() -> nn.Module:
    """Return a CNN of 63,882 parameters with group normalisation."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2),
        nn.GroupNorm(4, 16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5, padding=2),
        nn.GroupNorm(4, 32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 32),
        nn.ReLU(),
        nn.Linear(32, CLASSES),
    )


def build_mlp() -> nn.Module:
    """Return an MLP of 50,890 parameters."""
    return nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, CLASSES))


CASES: Final = {
    "logistic": Case("logistic regression", lambda *_: nn.Linear(784, CLASSES), (784,)),
    "mlp": Case("MLP 51k", lambda *_: build_mlp(), (784,)),
    "cnn-64k": Case("CNN 64k", lambda *_: build_small_cnn(), (1, 28, 28)),
    "cnn-1.6m": Case("CNN 1.6M", lambda *_: build_cnn(input_shape=(3, 32, 32)), (3, 32, 32)),
    "lstm": Case("LSTM 25k", lambda recurrent, _: Lstm(recurrent), (STEPS, 32)),
    "transformer": Case(
        "transformer 107k", lambda _, attention: Transformer(attention), (STEPS,), is_discrete=True
    ),
}


def make_batch(name: str, size: int) -> tuple[Tensor, Tensor]:
    """Return records `(size, *shape)` and labels `(size,)`, the same each time."""
    generator = torch.Generator().manual_seed(0)
    case, labels = CASES[name], torch.arange(size) % CLASSES
    if case.is_discrete:
        return torch.randint(0, TOKENS, (size, *case.shape), generator=generator), labels
    return torch.randn(size, *case.shape, generator=generator), labels

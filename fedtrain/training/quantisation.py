"""Training for weights of few bits: steps see them rounded, and move what is not rounded.

A step's gradient is taken at the rounded weights and applied to the exact ones, as if rounding
had slope one (the straight-through estimator). Rounding reads nothing but the model, so that
DP-SGD's gradients of single records are clipped and noised as ever. Biases stay as they are.

References:
    Bengio et al. 2013, "Estimating or propagating gradients through stochastic neurons".
    Jacob et al. 2018, "Quantization and training of neural networks for efficient
    integer-arithmetic-only inference".
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fedtrain.params import Layout, Vector


def round_weight(weight: Tensor, bits: int) -> Tensor:
    """Return a tensor on 2^bits - 1 levels from minus to plus its largest absolute value."""
    half = 2 ** (bits - 1) - 1
    step = weight.abs().max() / half
    if not step > 0:  # all zero, or not a number: for others to find
        return weight
    rounded: Tensor = (weight / step).round() * step
    return rounded


def round_model(layout: Layout, vector: Vector, bits: int) -> Vector:
    """Return a model `(d,)` with every weight, biases aside, on the levels of its tensor.

    Args:
        layout: Of the model.
        vector: The model, `(d,)`.
        bits: Of a weight.
    """
    rounded = vector.copy()
    for part in layout.split(rounded).values():
        if part.ndim > 1:
            part[...] = round_weight(torch.from_numpy(part), bits).numpy()
    return rounded


class RoundedWeights:
    """Holds a model's weights rounded, and the exact ones beside it."""

    def __init__(self, parameters: Sequence[Tensor], bits: int) -> None:
        """Take the parameters whose weights are to be rounded."""
        self._weights = [p for p in parameters if p.ndim > 1]
        self._bits = bits
        self._exact: list[Tensor] = []

    def round(self) -> None:
        """Keep the exact weights and round those in the model."""
        self._exact = [weight.detach().clone() for weight in self._weights]
        with torch.no_grad():
            for weight in self._weights:
                weight.copy_(round_weight(weight, self._bits))

    def restore(self) -> None:
        """Put the exact weights back into the model."""
        with torch.no_grad():
            for weight, exact in zip(self._weights, self._exact, strict=True):
                weight.copy_(exact)

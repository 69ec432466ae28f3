"""The loss of a variational autoencoder.

Shapes: B records, f numbers of one.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from torch import Tensor

from fedtrain.models.autoencoders import Reconstruction

# Twice the variance that a prepared number has around its reconstruction: with it, the mean of
# squares and the divergence add up to the bound of Kingma and Welling 2014, scaled.
WEIGHT: Final = 0.02
Loss = Callable[..., Tensor]


def add_divergence(loss: Loss) -> Loss:
    """Return the loss with a `Reconstruction`'s divergence added; else the loss itself."""
    return partial(_compute, loss)


def _compute(
    loss: Loss, input: Tensor | Reconstruction, target: Tensor, *, reduction: str = "mean"
) -> Tensor:
    if not isinstance(input, Reconstruction):
        return loss(input, target, reduction=reduction)
    losses = loss(input.outputs, target, reduction="none") + WEIGHT * input.divergence
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.mean()

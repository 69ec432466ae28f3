"""The loss of a record that is predicted at each of its positions.

Shapes: B records, l positions, C classes.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from fedtrain.models.sequences import Predictions

Loss = Callable[..., Tensor]


def average_positions(loss: Loss) -> Loss:
    """Return the loss of `Predictions`: the mean over a record's positions; else the loss itself.

    It is one number a record, of that record alone, as the loss of a position is: so that clipping
    a record's gradient bounds all that its characters do.
    """
    return partial(_compute, loss)


def _compute(
    loss: Loss, input: Tensor | Predictions, target: Tensor, *, reduction: str = "mean"
) -> Tensor:
    if not isinstance(input, Predictions):
        return loss(input, target, reduction=reduction)
    logits = input.logits
    targets = torch.cat([input.following, target.unsqueeze(1)], 1)
    if reduction != "none":
        total = loss(logits.flatten(0, 1), targets.flatten(), reduction=reduction)
        return total / logits.shape[1] if reduction == "sum" else total
    losses = loss(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return losses.view(targets.shape).mean(1)

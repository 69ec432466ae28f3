"""Backward passes, without what `torch.autograd.grad` does before and after.

The only module that calls the autograd engine itself, which is not public: a third of a small
model's step goes into checks of arguments that cannot be wrong here. A contract test compares the
two, so that an upgrade of PyTorch that changes the engine breaks there, loudly.
"""

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

_ENGINE: Final[Any] = torch.autograd.Variable._execution_engine
_ONE: Final = torch.ones(())


def differentiate(loss: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradient of a scalar loss for each parameter; the loss's graph is freed.

    Args:
        loss: Scalar that depends on at least one of the parameters.
        parameters: Tensors that require a gradient.

    Returns:
        A gradient for each parameter, in order; zero for those that the loss does not use.
    """
    one = _ONE if loss.dtype == _ONE.dtype else torch.ones_like(loss)
    keep_graph = create_graph = False
    gradients = _ENGINE.run_backward(
        (loss,),
        (one,),
        keep_graph,
        create_graph,
        tuple(parameters),
        True,  # allow what the loss does not use
        accumulate_grad=False,
    )
    return [
        torch.zeros_like(parameter) if gradient is None else gradient
        for parameter, gradient in zip(parameters, gradients, strict=True)
    ]


def run_hooks(losses: Tensor) -> None:
    """Run the backward pass of the losses' sum for the hooks on its way; the graph is freed.

    Args:
        losses: `(n,)`, of a graph in which no parameter requires a gradient.
    """
    keep_graph = create_graph = False
    _ENGINE.run_backward(
        (losses,),
        (torch.ones_like(losses),),
        keep_graph,
        create_graph,
        (),  # no inputs: to the graph's ends
        True,
        accumulate_grad=True,
    )

"""What one forward pass leaves for the backward pass: every use of every trainable layer.

A layer's forward function is replaced for the length of one pass by one that computes the same and
records its input and, through a hook, the loss's gradient by its output. Parameters do not require
a gradient meanwhile: autograd computes only the gradients by activations, once.

Shapes: B records in the batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from fedtrain.errors import ConfigError
from fedtrain.training.contributions import Contribution

# What makes a function without an input that requires a gradient part of the graph.
ONE: Final = torch.ones((), requires_grad=True)


class _Open(torch.autograd.Function):
    """Marks a tensor without a graph as the result of one, in place and without a copy."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, one: Tensor) -> Tensor:
        del one
        ctx.mark_dirty(tensor)
        return tensor

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None]:
        del ctx, gradients
        return None, None


def watch(output: Tensor, receive: Callable[[Tensor], None]) -> Tensor:
    """Have the loss's gradient by a tensor delivered in the backward pass.

    Args:
        output: Fresh result of a layer; may be changed in place afterwards.
        receive: Called once, if the loss depends on the tensor.

    Returns:
        The tensor, to go on with.
    """
    if output._is_view():
        # A change in place would go past the hook of a view: make it a tensor in its own right.
        output = _forget_base(output)
    if not output.requires_grad:
        output = _Open.apply(output, ONE)  # type: ignore[no-untyped-call]
    output.register_hook(receive)  # type: ignore[no-untyped-call]
    return output


def _forget_base(view: Tensor) -> Tensor:
    if not view.is_contiguous():
        return view.clone()
    alone: Tensor = torch.ops.aten._unsafe_view(view, view.shape)  # its base is nobody else's
    return alone


class Use:
    """One call of a layer: its input, and the gradient by its output once it is known."""

    __slots__ = ("_part", "_version", "gradient", "inputs", "size")

    def __init__(self, part: "Part", inputs: Tensor, *, size: int) -> None:
        self._part, self._version = part, inputs._version
        self.inputs, self.size = inputs, size
        self.gradient: Tensor | None = None

    def receive(self, gradient: Tensor) -> None:
        """Take the gradient, and let the layer finish if it was the last."""
        if self.inputs._version != self._version:
            raise ConfigError(
                f"model: the input of layer '{self._part.name}' is changed in place after the layer"
                " has read it; use an operation that makes a new tensor"
            )
        self.gradient = gradient
        self._part.count_down()


class Part(ABC):
    """Some parameters of a layer, and their uses in the current pass."""

    def __init__(self, name: str, parameters: Sequence[Tensor]) -> None:
        self.name = name
        self.parameters = parameters
        self._uses: list[Use] = []
        self._open = 0
        self._found: list[Contribution] = []

    def watch(self, output: Tensor, inputs: Tensor) -> Tensor:
        """Record a use; return the output, to go on with."""
        return watch(output, self.begin(inputs, size=output.numel()).receive)

    def begin(self, inputs: Tensor, *, size: int) -> Use:
        """Record a use whose gradient, of so many numbers, will be given to it."""
        use = Use(self, inputs.detach(), size=inputs.numel() + size)
        self._uses.append(use)
        self._open += 1
        return use

    def verify_rows(self, count: int) -> None:
        """Refuse inputs whose first dimension is not the record."""
        for use in self._uses:
            if len(use.inputs) != count:
                raise ConfigError(
                    f"model: layer '{self.name}' gets an input of shape"
                    f" {tuple(use.inputs.shape)} for a batch of {count}; the first dimension must"
                    " be the record under differential privacy"
                )

    def count_floats(self) -> int:
        """Return about how many numbers the uses so far, and what is made of them, will take."""
        several = any(use.inputs.dim() > 2 for use in self._uses) or len(self._uses) > 1
        made = sum(parameter.numel() for parameter in self.parameters)
        makes = several and not self.avoids_samples([use.inputs for use in self._uses])
        return sum(use.size for use in self._uses) + (made if makes else 0)

    def avoids_samples(self, inputs: Sequence[Tensor]) -> bool:
        """Say whether the gradients of such inputs would not be made one record at a time."""
        del inputs
        return False

    def count_down(self) -> None:
        """Derive the gradients as soon as every use has its own, so that memory is free again."""
        self._open -= 1
        if not self._open:
            self._settle()

    def take(self) -> list[Contribution]:
        """Return what the pass has left, and forget it."""
        self._settle()
        found, self._found, self._open = self._found, [], 0
        return found

    def clear(self) -> None:
        """Forget an unfinished pass."""
        self._uses, self._found, self._open = [], [], 0

    def _settle(self) -> None:
        uses = [(u.inputs, u.gradient) for u in self._uses if u.gradient is not None]
        self._uses = []
        if uses:
            self._found = self.derive(uses)

    @abstractmethod
    def derive(self, uses: Sequence[tuple[Tensor, Tensor]]) -> list[Contribution]:
        """Return the records' gradients, summed over uses: pairs of input and gradient."""


@dataclass(frozen=True)
class Followed:
    """A layer, the forward function that stands in for its own, and its parameters' parts."""

    module: nn.Module
    forward: Callable[..., Any]
    parts: Sequence[Part]


Rule = Callable[[str, nn.Module], Followed]


@contextmanager
def follow(layers: Sequence[Followed], parameters: Sequence[Tensor]) -> Iterator[None]:
    """Replace the layers' forward functions, and stop their parameters from needing gradients."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    own = [vars(layer.module).get("forward") for layer in layers]
    torch.backends.mha.set_fastpath_enabled(False)
    for layer in layers:
        vars(layer.module)["forward"] = layer.forward
    for parameter in parameters:
        parameter.requires_grad = False
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad = True
        for layer, forward in zip(layers, own, strict=True):
            if forward is None:
                del vars(layer.module)["forward"]
            else:
                vars(layer.module)["forward"] = forward
        torch.backends.mha.set_fastpath_enabled(fast_path)

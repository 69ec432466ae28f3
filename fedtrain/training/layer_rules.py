"""How each kind of layer turns its inputs and output gradients into per-record gradients.

Shapes: B records, T positions of a record, i inputs and o outputs, C channels.
"""

from collections.abc import Sequence
from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedtrain.errors import ConfigError
from fedtrain.training.contributions import Contribution, Outer, Positions, Rows, Samples
from fedtrain.training.tape import Followed, Part, Rule

Pairs = Sequence[tuple[Tensor, Tensor]]


class LinearPart(Part):
    """`y = x W^T + b`, over any leading dimensions of which the first is the record."""

    def __init__(self, name: str, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias = weight, bias
        self._weight, self._bias = keep_trainable(weight), keep_trainable(bias)
        super().__init__(name, list_given(self._weight, self._bias))

    def apply(self, inputs: Tensor) -> Tensor:
        """Return the layer's output, recorded."""
        return self.watch(functional.linear(inputs, self.weight, self.bias), inputs)

    def avoids_samples(self, inputs: Sequence[Tensor]) -> bool:
        """See `Part`."""
        return _has_few_positions(inputs, self.weight)

    def derive(self, uses: Pairs) -> list[Contribution]:
        """See `Part`."""
        return derive_linear(uses, weight=self._weight, bias=self._bias)


def derive_linear(uses: Pairs, *, weight: Tensor | None, bias: Tensor | None) -> list[Contribution]:
    """Return the gradients of a linear map.

    Args:
        uses: Pairs of inputs `(B, ..., i)` and gradients `(B, ..., o)`.
        weight: `(o, i)`; None where it is frozen.
        bias: `(o,)`; None where there is none or it is frozen.
    """
    inputs, gradients = uses[0]
    if len(uses) > 1 or inputs.dim() > 2:
        inputs = _join_positions([a for a, _ in uses])
        gradients = _join_positions([g for _, g in uses])
        if inputs.shape[1] == 1:
            inputs, gradients = inputs[:, 0], gradients[:, 0]
    if inputs.dim() == 2:
        if weight is not None:
            return [Outer(weight, bias, inputs=inputs, gradients=gradients)]
        return [] if bias is None else [Samples(bias, gradients)]
    found: list[Contribution] = []
    if weight is not None and _has_few_positions([inputs], weight):
        found.append(Positions(weight, inputs=inputs, gradients=gradients))
    elif weight is not None:
        found.append(Samples(weight, torch.bmm(gradients.transpose(1, 2), inputs)))
    if bias is not None:
        found.append(Samples(bias, gradients.sum(1)))
    return found


def _has_few_positions(inputs: Sequence[Tensor], weight: Tensor) -> bool:
    outputs, width = weight.shape
    positions = sum(a[0].numel() for a in inputs) // width
    return Positions.is_cheaper(positions, inputs=width, outputs=outputs)


def _join_positions(tensors: Sequence[Tensor]) -> Tensor:
    """Return tensors `(B, ..., k)` as one `(B, T, k)`."""
    flat = [
        tensor.unsqueeze(1) if tensor.dim() == 2 else tensor.flatten(1, -2) for tensor in tensors
    ]
    return flat[0] if len(flat) == 1 else torch.cat(flat, 1)


class ConvPart(Part):
    """A convolution over one or two dimensions."""

    def __init__(self, name: str, module: nn.Conv1d | nn.Conv2d) -> None:
        self._module = module
        self._weight, self._bias = keep_trainable(module.weight), keep_trainable(module.bias)
        super().__init__(name, list_given(self._weight, self._bias))
        self._padding = module._reversed_padding_repeated_twice
        # Padding that is not the same on both sides, or not of zeros, is applied beforehand.
        sides = list(zip(self._padding[::2], self._padding[1::2], strict=True))
        self._pads = module.padding_mode != "zeros" or any(a != b for a, b in sides)
        self._sizes = [0] * len(sides) if self._pads else [a for a, _ in reversed(sides)]

    def apply(self, inputs: Tensor) -> Tensor:
        """Return the layer's output, recorded."""
        module = self._module
        if self._pads:
            mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
            inputs = functional.pad(inputs, self._padding, mode=mode)
        convolve = functional.conv2d if len(self._sizes) == 2 else functional.conv1d
        output = convolve(
            inputs,
            module.weight,
            module.bias,
            module.stride,
            self._sizes,
            module.dilation,
            module.groups,
        )
        return self.watch(output, inputs)

    def derive(self, uses: Pairs) -> list[Contribution]:
        """See `Part`."""
        found: list[Contribution] = []
        if self._weight is not None:
            weights = [self._compute_weights(a, g) for a, g in uses]
            found.append(Samples(self._weight, _add_up(weights)))
        if self._bias is not None:
            found.append(Samples(self._bias, _add_up([g.flatten(2).sum(2) for _, g in uses])))
        return found

    def _compute_weights(self, inputs: Tensor, gradients: Tensor) -> Tensor:
        """Return the records' gradients of the weight, `(B, o, C / groups, *kernel)`.

        A batch is one record with B times the channels and groups: one call of the library that
        is about as fast as the gradient of the whole batch, and needs no copy of the windows.
        """
        module, count = self._module, len(inputs)
        shape = (count * module.out_channels, *module.weight.shape[1:])
        _, weights, _ = torch.ops.aten.convolution_backward(
            gradients.reshape(1, -1, *gradients.shape[2:]),
            inputs.reshape(1, -1, *inputs.shape[2:]),
            inputs.new_empty(1).expand(shape),
            None,
            module.stride,
            self._sizes,
            module.dilation,
            False,
            [0] * len(self._sizes),
            count * module.groups,
            (False, True, False),
        )
        return cast("Tensor", weights).view(count, *module.weight.shape)


class EmbeddingPart(Part):
    """A table of rows, looked up by ids."""

    def __init__(self, name: str, module: nn.Embedding) -> None:
        if module.max_norm is not None or module.scale_grad_by_freq:
            raise ConfigError(
                f"model: layer '{name}' has max_norm or scale_grad_by_freq, which let records"
                " change the rows past their gradient; leave both out under differential privacy"
            )
        self._module = module
        super().__init__(name, [module.weight])

    def apply(self, ids: Tensor) -> Tensor:
        """Return the rows, recorded."""
        return self.watch(functional.embedding(ids, self._module.weight), ids)

    def derive(self, uses: Pairs) -> list[Contribution]:
        """See `Part`."""
        ids = torch.cat([i.flatten(1) for i, _ in uses], 1)
        gradients = torch.cat([g.flatten(1, -2) for _, g in uses], 1)
        if self._module.padding_idx is not None:
            gradients = gradients.masked_fill((ids == self._module.padding_idx).unsqueeze(2), 0.0)
        return [Rows(self._module.weight, ids, gradients)]


class LayerNormPart(Part):
    """Normalisation of the last dimensions, with a factor and a summand an element."""

    def __init__(self, name: str, module: nn.LayerNorm) -> None:
        self._module = module
        self._weight, self._bias = keep_trainable(module.weight), keep_trainable(module.bias)
        super().__init__(name, list_given(self._weight, self._bias))

    def apply(self, inputs: Tensor) -> Tensor:
        """Return the layer's output, recorded."""
        module = self._module
        output = functional.layer_norm(
            inputs, module.normalized_shape, module.weight, module.bias, module.eps
        )
        return self.watch(output, inputs)

    def derive(self, uses: Pairs) -> list[Contribution]:
        """See `Part`."""
        shape, eps = self._module.normalized_shape, self._module.eps
        found: list[Contribution] = []
        if self._weight is not None:
            products = [functional.layer_norm(a, shape, eps=eps).mul_(g) for a, g in uses]
            found.append(Samples(self._weight, _add_up([self._sum(p) for p in products])))
        if self._bias is not None:
            found.append(Samples(self._bias, _add_up([self._sum(g) for _, g in uses])))
        return found

    def _sum(self, values: Tensor) -> Tensor:
        """Return the sums over positions, `(B, *normalized_shape)`."""
        return values.reshape(len(values), -1, *self._module.normalized_shape).sum(1)


class GroupNormPart(Part):
    """Group normalisation with a factor and a summand a channel."""

    def __init__(self, name: str, module: nn.GroupNorm) -> None:
        self._module = module
        self._weight, self._bias = keep_trainable(module.weight), keep_trainable(module.bias)
        super().__init__(name, list_given(self._weight, self._bias))

    def apply(self, inputs: Tensor) -> Tensor:
        """Return the layer's output, recorded."""
        module = self._module
        output = functional.group_norm(
            inputs, module.num_groups, module.weight, module.bias, module.eps
        )
        return self.watch(output, inputs)

    def derive(self, uses: Pairs) -> list[Contribution]:
        """See `Part`."""
        module = self._module
        found: list[Contribution] = []
        if self._weight is not None:
            products = [
                functional.group_norm(a, module.num_groups, None, None, module.eps).mul_(g)
                for a, g in uses
            ]
            found.append(Samples(self._weight, _add_up([p.flatten(2).sum(2) for p in products])))
        if self._bias is not None:
            found.append(Samples(self._bias, _add_up([g.flatten(2).sum(2) for _, g in uses])))
        return found


def keep_trainable(parameter: Tensor | None) -> Tensor | None:
    """Return a parameter that is there and not frozen, or None."""
    return parameter if parameter is not None and parameter.requires_grad else None


def list_given(*parameters: Tensor | None) -> list[Tensor]:
    """Return those that are not None."""
    return [parameter for parameter in parameters if parameter is not None]


def _add_up(tensors: Sequence[Tensor]) -> Tensor:
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total


def _follow_linear(name: str, module: nn.Module) -> Followed:
    layer = cast("nn.Linear", module)
    part = LinearPart(name, layer.weight, layer.bias)
    return Followed(module, part.apply, [part])


def _follow_conv(name: str, module: nn.Module) -> Followed:
    part = ConvPart(name, cast("nn.Conv1d | nn.Conv2d", module))
    return Followed(module, part.apply, [part])


def _follow_embedding(name: str, module: nn.Module) -> Followed:
    part = EmbeddingPart(name, cast("nn.Embedding", module))
    return Followed(module, part.apply, [part])


def _follow_layer_norm(name: str, module: nn.Module) -> Followed:
    part = LayerNormPart(name, cast("nn.LayerNorm", module))
    return Followed(module, part.apply, [part])


def _follow_group_norm(name: str, module: nn.Module) -> Followed:
    part = GroupNormPart(name, cast("nn.GroupNorm", module))
    return Followed(module, part.apply, [part])


# By exact type: a subclass may compute something else.
LAYER_RULES: Final[dict[type[nn.Module], Rule]] = {
    nn.Linear: _follow_linear,
    nn.Conv1d: _follow_conv,
    nn.Conv2d: _follow_conv,
    nn.Embedding: _follow_embedding,
    nn.LayerNorm: _follow_layer_norm,
    nn.GroupNorm: _follow_group_norm,
}

"""LSTM and GRU that give away the gradients by their gates before the non-linearity.

PyTorch's own run as one operation, which keeps them to itself. Here a layer is one autograd
function: all products that do not wait for the step before are made at once, and the loop over
time does only what must follow the step before.

Supported: any number of layers, both directions, dropout between layers, initial states;
`batch_first`. Not supported: `proj_size`, packed sequences.

Shapes: B records, T steps, i inputs, h hidden units; inside, time comes first.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedtrain.errors import ConfigError
from fedtrain.training.layer_rules import LinearPart
from fedtrain.training.tape import ONE, Followed, Rule, Use

State = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class _Weights:
    """One layer's in one direction: `(g h, i)`, `(g h, h)` and two biases `(g h,)`, g gates."""

    inputs: LinearPart
    hidden: LinearPart

    def project(self, steps: Tensor) -> Tensor:
        """Return the gates' share of the inputs `(T, B, i)`, `(T, B, g h)`."""
        return functional.linear(steps, self.inputs.weight, self.inputs.bias)


class _Lstm(torch.autograd.Function):
    """One direction of one layer of an LSTM (Hochreiter and Schmidhuber 1997; torch's gates)."""

    @staticmethod
    def forward(
        ctx: Any, steps: Tensor, hidden: Tensor, cell: Tensor, one: Tensor, weights: _Weights
    ) -> tuple[Tensor, Tensor, Tensor]:
        del one
        size, recurrent = hidden.shape[1], weights.hidden.weight.t()
        gates = weights.project(steps)
        if weights.hidden.bias is not None:
            gates += weights.hidden.bias
        hiddens, cells = (start.new_empty(len(steps) + 1, *start.shape) for start in (hidden, cell))
        squashed = torch.empty_like(hiddens[1:])
        hiddens[0], cells[0] = hidden, cell
        for t in range(len(steps)):
            gate = gates[t].addmm_(hiddens[t], recurrent)
            gate[:, : 2 * size].sigmoid_()
            gate[:, 2 * size : 3 * size].tanh_()
            gate[:, 3 * size :].sigmoid_()
            i, f, g, o = torch.split(gate, size, 1)
            torch.mul(f, cells[t], out=cells[t + 1]).addcmul_(i, g)
            torch.mul(torch.tanh(cells[t + 1], out=squashed[t]), o, out=hiddens[t + 1])
        ctx.weights, ctx.saved = weights, (gates, cells, squashed)
        ctx.uses = _begin(weights, steps, hiddens, size=5 * gates.numel())
        # Views of one tensor may not be changed in place by whoever comes next: hence a copy.
        return hiddens[1:].clone(), hiddens[-1].clone(), cells[-1].clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        by_steps, by_hidden, by_cell = gradients
        gates, cells, squashed = ctx.saved
        weights: _Weights = ctx.weights
        size, recurrent = squashed.shape[2], weights.hidden.weight
        i, f, g, o = gates.split(size, 2)
        from_hidden = o * (1 - squashed * squashed)
        # What the gradient by the cell (i, f, g) or by the output (o) is multiplied with.
        slopes = gates.view(*gates.shape[:2], 4, size)
        slopes = slopes * (1 - slopes)
        slopes[:, :, 0] *= g
        slopes[:, :, 1] *= cells[:-1]
        slopes[:, :, 2] = i * (1 - g * g)
        slopes[:, :, 3] *= squashed
        by_hidden = by_hidden + by_steps[-1]
        for t in range(len(gates) - 1, -1, -1):
            by_cell = torch.addcmul(by_cell, by_hidden, from_hidden[t])
            slope = slopes[t]
            slope[:, :3] *= by_cell.unsqueeze(1)
            slope[:, 3] *= by_hidden
            by_cell = by_cell * f[t]
            if t:
                by_hidden = torch.addmm(by_steps[t - 1], slope.flatten(1), recurrent)
        by_gates = slopes.flatten(2)
        first = by_gates[0] @ recurrent if ctx.needs_input_grad[1] else None
        _finish(ctx.uses, by_gates, by_gates)
        inner = by_gates @ weights.inputs.weight if ctx.needs_input_grad[0] else None
        return inner, first, by_cell, None, None


class _Gru(torch.autograd.Function):
    """One direction of one layer of a GRU (Cho et al. 2014; torch's gates)."""

    @staticmethod
    def forward(
        ctx: Any, steps: Tensor, hidden: Tensor, one: Tensor, weights: _Weights
    ) -> tuple[Tensor, Tensor]:
        del one
        size, recurrent = hidden.shape[1], weights.hidden.weight.t()
        gates = weights.project(steps)
        hiddens = hidden.new_empty(len(steps) + 1, *hidden.shape)
        news = torch.empty_like(hiddens[1:])  # the hidden state's share of the third gate
        hiddens[0] = hidden
        bias = weights.hidden.bias
        for t in range(len(steps)):
            gate, last = gates[t], hiddens[t]
            share = last @ recurrent if bias is None else torch.addmm(bias, last, recurrent)
            both, third = gate[:, : 2 * size], gate[:, 2 * size :]
            both.add_(share[:, : 2 * size]).sigmoid_()
            news[t] = share[:, 2 * size :]
            third.addcmul_(both[:, :size], news[t]).tanh_()
            torch.lerp(third, last, both[:, size:], out=hiddens[t + 1])
        ctx.weights, ctx.saved = weights, (gates, news, hiddens)
        ctx.uses = _begin(weights, steps, hiddens, size=5 * gates.numel())
        return hiddens[1:].clone(), hiddens[-1].clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        by_steps, by_hidden = gradients
        gates, news, hiddens = ctx.saved
        weights: _Weights = ctx.weights
        size, recurrent = news.shape[2], weights.hidden.weight
        r, z, n = gates.split(size, 2)
        by_third = (1 - z) * (1 - n * n)
        slopes = gates.new_empty(*gates.shape[:2], 3, size)
        torch.mul(by_third, r, out=slopes[:, :, 2])
        torch.mul(slopes[:, :, 2], news, out=slopes[:, :, 0]).mul_(1 - r)
        torch.mul(hiddens[:-1] - n, z * (1 - z), out=slopes[:, :, 1])
        by_hidden = by_hidden + by_steps[-1]
        for t in range(len(gates) - 1, -1, -1):
            slope = slopes[t].mul_(by_hidden.unsqueeze(1))
            by_third[t] *= by_hidden
            kept = by_hidden * z[t]
            if t:
                kept += by_steps[t - 1]
            by_hidden = kept.addmm_(slope.flatten(1), recurrent)
        by_hidden_gates = slopes.flatten(2)
        by_input_gates = torch.cat([by_hidden_gates[:, :, : 2 * size], by_third], 2)
        _finish(ctx.uses, by_input_gates, by_hidden_gates)
        inner = by_input_gates @ weights.inputs.weight if ctx.needs_input_grad[0] else None
        return inner, by_hidden, None, None


def _apply(function: type[torch.autograd.Function], *arguments: Any) -> tuple[Tensor, ...]:
    results: tuple[Tensor, ...] = function.apply(*arguments)  # type: ignore[no-untyped-call]
    return results


def _begin(weights: _Weights, steps: Tensor, hiddens: Tensor, *, size: int) -> tuple[Use, Use]:
    """Record the uses; what the gates and their gradients take is counted with the first."""
    return (
        weights.inputs.begin(steps.transpose(0, 1), size=size),
        weights.hidden.begin(hiddens[:-1].transpose(0, 1), size=0),
    )


def _finish(uses: tuple[Use, Use], by_input_gates: Tensor, by_hidden_gates: Tensor) -> None:
    uses[0].receive(by_input_gates.transpose(0, 1))
    uses[1].receive(by_hidden_gates.transpose(0, 1))


class _Stack:
    """All layers and directions of an `nn.LSTM` or `nn.GRU`."""

    def __init__(self, name: str, module: nn.LSTM | nn.GRU) -> None:
        if module.proj_size:
            raise ConfigError(
                f"model: layer '{name}' has proj_size = {module.proj_size}, of which no per-record"
                " gradient is known; set proj_size = 0 under differential privacy"
            )
        self._module, self._name = module, name
        self._weights = [
            _Weights(*_make_parts(name, module, f"_l{layer}{suffix}"))
            for layer in range(module.num_layers)
            for suffix in ("", "_reverse")[: 1 + module.bidirectional]
        ]

    def list_parts(self) -> Iterator[LinearPart]:
        """Yield the parts, to be followed."""
        for weights in self._weights:
            yield from (weights.inputs, weights.hidden)

    def apply_lstm(self, inputs: Tensor, hx: State | None = None) -> tuple[Tensor, State]:
        """Return what `nn.LSTM` returns, recorded."""
        starts = self._make_starts(inputs, hx or (None, None))

        def run(steps: Tensor, number: int) -> tuple[Tensor, ...]:
            states = (start[number] for start in starts)
            return _apply(_Lstm, steps, *states, ONE, self._weights[number])

        outputs, (hidden, cell) = self._run(inputs, run)
        return outputs, (hidden, cell)

    def apply_gru(self, inputs: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return what `nn.GRU` returns, recorded."""
        (starts,) = self._make_starts(inputs, (hx,))

        def run(steps: Tensor, number: int) -> tuple[Tensor, ...]:
            return _apply(_Gru, steps, starts[number], ONE, self._weights[number])

        outputs, (hidden,) = self._run(inputs, run)
        return outputs, hidden

    def _make_starts(self, inputs: Tensor, given: tuple[Tensor | None, ...]) -> list[Tensor]:
        if not isinstance(inputs, Tensor) or inputs.dim() != 3:
            raise ConfigError(
                f"model: layer '{self._name}' takes a tensor (records, steps, features) under"
                " differential privacy; pad sequences in place of packing them"
            )
        shape = (len(self._weights), len(inputs), self._module.hidden_size)
        return [inputs.new_zeros(shape) if start is None else start for start in given]

    def _run(
        self, inputs: Tensor, run: Callable[[Tensor, int], tuple[Tensor, ...]]
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the last layer's outputs `(B, T, directions h)` and all last states."""
        module, directions = self._module, 1 + self._module.bidirectional
        steps, states = inputs.transpose(0, 1).contiguous(), []
        for layer in range(module.num_layers):
            if layer and module.dropout:
                steps = functional.dropout(steps, module.dropout, module.training)
            outputs, *state = run(steps, layer * directions)
            states.append(state)
            if directions == 2:
                backwards, *state = run(steps.flip(0), layer * directions + 1)
                outputs = torch.cat([outputs, backwards.flip(0)], 2)
                states.append(state)
            steps = outputs
        return steps.transpose(0, 1), [torch.stack(kind) for kind in zip(*states, strict=True)]


def _make_parts(name: str, module: nn.Module, suffix: str) -> Iterator[LinearPart]:
    for kind in ("ih", "hh"):
        weight = getattr(module, f"weight_{kind}{suffix}")
        yield LinearPart(name, weight, getattr(module, f"bias_{kind}{suffix}", None))


def _follow_lstm(name: str, module: nn.Module) -> Followed:
    stack = _Stack(name, cast("nn.LSTM", module))
    return Followed(module, stack.apply_lstm, list(stack.list_parts()))


def _follow_gru(name: str, module: nn.Module) -> Followed:
    stack = _Stack(name, cast("nn.GRU", module))
    return Followed(module, stack.apply_gru, list(stack.list_parts()))


RECURRENT_RULES: Final[dict[type[nn.Module], Rule]] = {nn.LSTM: _follow_lstm, nn.GRU: _follow_gru}

"""Gradient inversion: what records would give the gradient that was seen?

Two ways. A first linear layer tells its inputs outright: the gradient of a unit's weights is its
input times the gradient of its bias, so that their quotient is a record wherever one record alone
moves the unit. And for any model records can be searched for whose gradient points where the seen
one does.

Shapes: B records of a batch, d parameters, u units of the first layer, f features.

References:
    Geiping et al. 2020 (arXiv:2003.14053), section 4: cosine distance, total variation, signed
    gradients. Phong et al. 2017; Fowl et al. 2022 (arXiv:2110.13057) for the linear layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fedtrain.errors import ConfigError
from fedtrain.params import Layout

# Of the largest bias gradient: below it a quotient is rounding.
_LEAST_SHARE: Final = 1e-6


@dataclass(frozen=True)
class Search:
    """How records are searched for.

    Attributes:
        low: Smallest value of a feature; public.
        high: Largest value.
        steps: Of Adam, for each start.
        starts: Random starts; the one with the best fit is kept.
        learning_rate: Of Adam; a tenth of it after 3/8, 5/8 and 7/8 of the steps.
        smoothness: Weight of the images' total variation; 0 for what is no image.
    """

    low: float
    high: float
    steps: int = 600
    starts: int = 2
    learning_rate: float = 0.1
    smoothness: float = 1e-3


def search_records(
    model: nn.Module,
    gradient: Tensor,
    labels: Tensor,
    *,
    shape: tuple[int, ...],
    search: Search,
    generator: torch.Generator,
) -> NDArray[np.float64]:
    """Search for the records whose mean gradient is like the one seen.

    Args:
        model: At the parameters that the gradient was taken at; left as it is.
        gradient: Mean gradient over the batch, `(d,)`, in the order of the model's parameters.
        labels: The records' labels, `(B,)`: the attacker is granted them.
        shape: Of one record.
        search: How.
        generator: Of the starts.

    Returns:
        `(B, *shape)`, within the features' range.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    target = gradient.detach() / gradient.detach().norm().clamp_min(1e-30)
    best, least = torch.zeros(len(labels), *shape), float("inf")
    for _ in range(search.starts):
        found, loss = _descend(
            model, parameters, target, labels=labels, shape=shape, search=search, draw=generator
        )
        if loss < least:
            best, least = found, loss
    return best.double().numpy()


def compute_gradient(model: nn.Module, features: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient of the mean loss of a batch, `(d,)`."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    loss = functional.cross_entropy(model(features), labels)
    parts = torch.autograd.grad(loss, parameters)
    return torch.cat([part.reshape(-1) for part in parts])


def read_first_layer(model: nn.Module, gradient: Tensor) -> NDArray[np.float64]:
    """Return what each unit of a first linear layer says its input was.

    Args:
        model: Begins with a linear layer, flattening aside, that has a bias.
        gradient: As seen, `(d,)`; any multiple of it gives the same.

    Returns:
        Candidates, `(k, f)`: one for each unit that was moved. Where several records move a unit,
        it is a mixture of them.

    Raises:
        ConfigError: The model has no such layer.
    """
    weights, bias = find_first_layer(model, gradient)
    moved = np.abs(bias) > _LEAST_SHARE * np.abs(bias).max(initial=0.0)
    candidates: NDArray[np.float64] = weights[moved] / bias[moved, None]
    return candidates


def find_first_layer(
    model: nn.Module, gradient: Tensor
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the parts of a gradient that a first linear layer has: `(u, f)` and `(u,)`.

    Raises:
        ConfigError: The model does not begin with a linear layer that has a bias.
    """
    layers = [(name, m) for name, m in model.named_modules() if not list(m.children())]
    layers = [(name, m) for name, m in layers if list(m.parameters())]
    name, first = layers[0] if layers else ("", None)
    if not isinstance(first, nn.Linear) or first.bias is None:
        kind = type(first).__name__
        raise ConfigError(
            f"the model begins with a {kind}; only a linear layer with a bias is read"
        )
    parts = Layout.of(model).split(gradient.detach().float().numpy())
    weight, bias = (parts[f"{name}.{part}".lstrip(".")] for part in ("weight", "bias"))
    return weight.astype(np.float64), bias.astype(np.float64)


def _descend(
    model: nn.Module,
    parameters: Sequence[Tensor],
    target: Tensor,
    *,
    labels: Tensor,
    shape: tuple[int, ...],
    search: Search,
    draw: torch.Generator,
) -> tuple[Tensor, float]:
    """Search from one start; return the records and how far their gradient is from the target."""
    middle, spread = (search.high + search.low) / 2, (search.high - search.low) / 2
    records = middle + spread * 0.5 * torch.randn(len(labels), *shape, generator=draw)
    records.clamp_(search.low, search.high).requires_grad_()
    optimiser = torch.optim.Adam([records], lr=search.learning_rate * spread)
    milestones = [search.steps * eighths // 8 for eighths in (3, 5, 7)]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones, gamma=0.1)
    distance = float("inf")
    for _ in range(search.steps):
        loss = functional.cross_entropy(model(records), labels)
        parts = torch.autograd.grad(loss, parameters, create_graph=True)
        flat = torch.cat([part.reshape(-1) for part in parts])
        apart = 1 - flat @ target / flat.norm().clamp_min(1e-30)
        distance = float(apart.detach())
        total = apart + search.smoothness * _compute_variation(records) / spread
        (slope,) = torch.autograd.grad(total, [records])
        records.grad = slope.sign()
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            records.clamp_(search.low, search.high)
    return records.detach(), distance


def _compute_variation(records: Tensor) -> Tensor:
    """Return the mean absolute difference of neighbouring pixels; 0 for what is no image."""
    if records.dim() < 3:
        return records.new_zeros(())
    across = (records[..., :, 1:] - records[..., :, :-1]).abs().mean()
    down = (records[..., 1:, :] - records[..., :-1, :]).abs().mean()
    return across + down

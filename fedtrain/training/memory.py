"""What keeps a run near its start model: a pull of each parameter, by its importance.

The term is pull/2 sum_i F_i (w_i - start_i)^2. With all F_i = 1 it is L2-SP; with the diagonal of
the Fisher information on earlier records it is elastic weight consolidation (EWC).

Shapes: n records.

References:
    EWC: Kirkpatrick et al. 2017 (arXiv:1612.00796). L2-SP: Li, Grandvalet, Davoine 2018
    (arXiv:1802.01483).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fedtrain.config import Config
from fedtrain.errors import ConfigError
from fedtrain.models.start import read_importance


@dataclass(frozen=True)
class Memory:
    """The start of each trained parameter, and how strongly each of its values is held.

    Attributes:
        start: One tensor a parameter.
        strengths: One tensor a parameter, of its shape or of none.
    """

    start: Sequence[Tensor] = field(repr=False)
    strengths: Sequence[Tensor] = field(repr=False)

    def add(self, gradients: Sequence[Tensor], parameters: Sequence[Tensor]) -> list[Tensor]:
        """Return the gradients with those of the pull."""
        parts = zip(gradients, parameters, self.start, self.strengths, strict=True)
        return [g + k * (p.detach() - s) for g, p, s, k in parts]


def recall_start(model: nn.Module, config: Config) -> Memory | None:
    """Return what the config pulls a start model's parameters by; None where by nothing.

    Args:
        model: The start model, as `build_start_model` or `build_site_model` made it.
        config: The resolved config.
    """
    section = config.continual
    if section is None:
        return None
    importance = read_importance(config.model) if section.importance == "file" else None
    return build_memory(model, pull=section.pull, importance=importance)


def build_memory(
    model: nn.Module, *, pull: float, importance: Mapping[str, Tensor] | None = None
) -> Memory:
    """Return what pulls a model's trained parameters towards their present values.

    Args:
        model: The start model.
        pull: Strength; the mean over all values, where they differ in importance.
        importance: Of every trained parameter, by name; None: all alike.

    Raises:
        ConfigError: The importance of a parameter is missing, of another shape, or negative.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    start = [p.detach().clone() for p in trained.values()]
    if importance is None:
        return Memory(start, [torch.tensor(pull)] * len(start))
    for name, parameter in trained.items():
        found = importance.get(name)
        if found is None or found.shape != parameter.shape or not bool((found >= 0).all()):
            raise ConfigError(
                f"continual.importance = 'file': the start file has no importance of '{name}';"
                " make it with fedtrain importance, or set 'equal'"
            )
    total = sum(float(importance[name].double().sum()) for name in trained)
    count = sum(p.numel() for p in trained.values())
    if total <= 0:
        raise ConfigError("continual.importance = 'file': all importances are 0; set 'equal'")
    return Memory(start, [importance[name].float() * (pull * count / total) for name in trained])


def compute_importance(model: nn.Module, features: NDArray[Any]) -> dict[str, Tensor]:
    """Return the diagonal of the Fisher information of each trained parameter, by name.

    It is the mean over records of the squared gradient of the log-probability of a class, the
    classes weighted as the model itself weighs them; no label is needed. It is computed from
    records and protected by nothing.

    Args:
        model: A model of classes.
        features: Prepared records, `(n, *input_shape)`.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    total = [torch.zeros_like(p) for p in trained.values()]
    model.eval()
    for record in torch.split(torch.from_numpy(features), 1):
        log_probabilities = functional.log_softmax(model(record)[0], dim=0)
        for value in log_probabilities:
            gradients = torch.autograd.grad(value, list(trained.values()), retain_graph=True)
            weight = float(value.detach().exp())
            for part, gradient in zip(total, gradients, strict=True):
                part += weight * gradient**2
    return {name: part / len(features) for name, part in zip(trained, total, strict=True)}

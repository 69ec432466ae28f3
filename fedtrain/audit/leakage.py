"""How much of a site's label distribution its step tells: a property that no record's noise hides.

The gradient of the loss by the last layer's bias is the mean prediction less the label's share, so
that a coordinator who knows what the model predicts on average reads off the shares.

Shapes: B records, c classes, d parameters.

References:
    Wainakh et al. 2022 (arXiv:2105.09369); Zhao et al. 2020 (arXiv:2001.02610), where a negative
    bias gradient names the label of a single record.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fedtrain.errors import ConfigError
from fedtrain.params import Layout

Floats = NDArray[np.float64]

_AUXILIARY: Final = 512  # records of the attacker's own that predictions are averaged over


@dataclass(frozen=True)
class Knowledge:
    """What the attacker knows besides the gradient.

    Attributes:
        features: Records of the same kind, `(a, *input_shape)`; the attacker's own.
        labels: Their labels, `(a,)`.
    """

    features: Tensor
    labels: Tensor

    def cut(self) -> "Knowledge":
        """Return the first of them."""
        return Knowledge(self.features[:_AUXILIARY], self.labels[:_AUXILIARY])


def estimate_label_shares(
    model: nn.Module, gradient: Tensor, predicted: Floats, *, scale: float = 1.0
) -> Floats:
    """Estimate the label shares of the records that a gradient is of.

    Args:
        model: At the parameters that the gradient was taken at.
        gradient: Mean gradient of cross-entropy over the records, `(d,)`.
        predicted: Mean prediction, `(c,)`, as `predict_shares` has it.
        scale: What the gradient is to be multiplied by to be a mean: 1, or what undoes a clip.

    Returns:
        `(c,)`, at least 0, sum 1.

    Raises:
        ConfigError: The model does not end in a linear layer that has a bias.
    """
    return _project(predicted - scale * _find_last_bias(model, gradient))


def predict_shares(model: nn.Module, knowledge: Knowledge) -> Floats:
    """Return the model's mean prediction over the attacker's records, `(c,)`."""
    own = knowledge.cut()
    with torch.no_grad():
        shares = functional.softmax(model(own.features), dim=1).mean(dim=0)
    return shares.double().numpy()


def compute_clip_scale(model: nn.Module, knowledge: Knowledge, *, max_grad_norm: float) -> float:
    """Return what a clip shortens gradients by: 1 / the mean factor over the attacker's records."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    own = knowledge.cut()
    factors = []
    for index in range(min(len(own.labels), 64)):
        record = own.features[index : index + 1]
        loss = functional.cross_entropy(model(record), own.labels[index : index + 1])
        parts = torch.autograd.grad(loss, parameters)
        norm = float(torch.sqrt(torch.stack([(part**2).sum() for part in parts]).sum()))
        factors.append(min(1.0, max_grad_norm / max(norm, 1e-12)))
    return 1 / float(np.mean(factors))


def compute_distance(shares: Floats, others: Floats) -> float:
    """Return the total variation distance of two distributions, 0 to 1."""
    return float(np.abs(shares - others).sum() / 2)


def count_shares(labels: NDArray[np.int64], classes: int) -> Floats:
    """Return each label's share, `(c,)`."""
    counts = np.bincount(labels, minlength=classes).astype(np.float64)
    return np.asarray(counts / counts.sum(), np.float64)


def _find_last_bias(model: nn.Module, gradient: Tensor) -> Floats:
    layers = [(name, m) for name, m in model.named_modules() if not list(m.children())]
    layers = [(name, m) for name, m in layers if list(m.parameters())]
    name, last = layers[-1] if layers else ("", None)
    if not isinstance(last, nn.Linear) or last.bias is None:
        raise ConfigError(
            f"the model ends in a {type(last).__name__}; only a linear layer with a bias is read"
        )
    parts = Layout.of(model).split(gradient.detach().float().numpy())
    return parts[f"{name}.bias".lstrip(".")].astype(np.float64)


def _project(values: Floats) -> Floats:
    """Return the distribution nearest to a vector (Duchi et al. 2008)."""
    finite = np.nan_to_num(values, nan=0.0, posinf=1e6, neginf=-1e6)
    ordered = np.sort(finite)[::-1]
    excess = (np.cumsum(ordered) - 1) / np.arange(1, len(ordered) + 1)
    last = int(np.flatnonzero(ordered > excess)[-1])
    shares: Floats = np.maximum(finite - excess[last], 0.0)
    return shares

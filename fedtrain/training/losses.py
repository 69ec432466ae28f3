"""The losses by name: each a sum over records, which the book-keeping of DP-SGD needs.

A loss takes outputs and targets and returns a scalar, or with `reduction="none"` one number a
record; it never looks at two records together, so that a record's gradient is its own. Numbers are
predicted in widths of the target's public bounds.

Shapes: B records, C classes, K outputs.

References:
    Lin et al. 2017 (arXiv:1708.02002): focal loss. Koenker, Bassett 1978: quantile loss.
    Huber 1964. Szegedy et al. 2015 (arXiv:1512.00567): label smoothing.
"""

from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from fedtrain.config import Config, TrainingSection
from fedtrain.config.task import CLASSIFICATION, LOSSES
from fedtrain.errors import ConfigError
from fedtrain.training.divergence import add_divergence
from fedtrain.training.positions import average_positions

DEFAULT_GAMMA: Final = 2.0
DEFAULT_DELTA: Final = 0.1
MEDIAN: Final = 0.5


class Loss(Protocol):
    """What a model is trained to make small."""

    def __call__(self, input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
        """Return the mean or the `sum` over records, or with `none` each record's, `(B,)`."""


def build_loss(config: Config, *, training: bool = True) -> Loss:
    """Return the loss that a config trains with.

    Args:
        config: The resolved config.
        training: False for the loss that is reported: without label smoothing, so that it can be
            compared from run to run.
    """
    name = config.training.loss or LOSSES[config.data.task or CLASSIFICATION][0]
    loss = _build_loss(name, config.training, training=training)
    if config.model.name == "vae":
        return add_divergence(loss)
    return average_positions(loss) if config.model.predict == "every" else loss


def verify_class_weights(section: TrainingSection, classes: int) -> None:
    """Raise ConfigError unless there is a weight for each class, where there are any."""
    weights = section.class_weights
    if weights is not None and len(weights) != classes:
        raise ConfigError(
            f"training.class_weights has {len(weights)} weights for {classes} classes; give one a"
            " class"
        )


def _build_loss(name: str, section: TrainingSection, *, training: bool) -> Loss:
    if training and section.class_weights is not None:
        plain = _build_loss(
            name, section.model_copy(update={"class_weights": None}), training=training
        )
        return partial(_weigh, plain, torch.tensor(section.class_weights, dtype=torch.float32))
    if name == "cross_entropy":
        smoothing = section.label_smoothing if training else None
        if smoothing is None:
            return functional.cross_entropy
        return partial(functional.cross_entropy, label_smoothing=smoothing)
    return partial(_reduce, _BUILDERS[name](section))


def _weigh(
    loss: Loss, weights: Tensor, input: Tensor, target: Tensor, *, reduction: str = "mean"
) -> Tensor:
    """Return a loss with each record's times its class's weight; no mean over a batch's weights.

    `functional.cross_entropy(weight=...)` divides by the batch's own weights, so that a record's
    gradient would hang on its neighbours.
    """
    losses = loss(input, target, reduction="none") * weights.to(input.device)[target]
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.mean()


_Records = Callable[[Tensor, Tensor], Tensor]


def _reduce(compute: _Records, input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    losses = compute(input, target)
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.mean()


def _build_focal(section: TrainingSection) -> _Records:
    gamma = section.focal_gamma or DEFAULT_GAMMA

    def compute(logits: Tensor, labels: Tensor) -> Tensor:
        log_shares = functional.log_softmax(logits, 1).gather(1, labels[:, None])[:, 0]
        return -((-torch.expm1(log_shares)) ** gamma) * log_shares

    return compute


def _build_bce(section: TrainingSection) -> _Records:
    del section

    def compute(logits: Tensor, labels: Tensor) -> Tensor:
        if labels.dim() == 1:
            labels = functional.one_hot(labels, logits.shape[1]).to(logits.dtype)
        return functional.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(1)

    return compute


def _build_of_errors(measure: Callable[[Tensor], Tensor]) -> _Records:
    """Return a loss that is the mean over a record's outputs of some measure of the error."""
    return lambda outputs, targets: measure(targets - outputs).flatten(1).mean(1)


def _build_huber(section: TrainingSection) -> _Records:
    delta = section.huber_delta or DEFAULT_DELTA

    def measure(errors: Tensor) -> Tensor:
        return functional.huber_loss(
            errors, torch.zeros_like(errors), reduction="none", delta=delta
        )

    return _build_of_errors(measure)


def _build_quantile(section: TrainingSection) -> _Records:
    share = section.quantile or MEDIAN
    return _build_of_errors(lambda errors: torch.maximum(share * errors, (share - 1) * errors))


_BUILDERS: Final[dict[str, Callable[[TrainingSection], _Records]]] = {
    "focal": _build_focal,
    "bce": _build_bce,
    "mse": lambda _: _build_of_errors(torch.square),
    "mae": lambda _: _build_of_errors(torch.abs),
    "huber": _build_huber,
    "quantile": _build_quantile,
}

"""A step on made-up records, to find before a run that a model of the user's own cannot train.

Shapes: d is the length of the flat parameter vector.
"""

import copy
import math
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from fedtrain.config import Config
from fedtrain.data.shards import Split
from fedtrain.data.targets import has_targets
from fedtrain.errors import ConfigError, FedtrainError
from fedtrain.models.dp_rules import verify_private_model, verify_records_independent
from fedtrain.params import ModelState
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.training.dp_sgd import make_book_keeper
from fedtrain.training.gradients import differentiate
from fedtrain.training.local import LocalTask, LocalTrainer
from fedtrain.training.losses import build_loss
from fedtrain.training.measures import take_targets
from fedtrain.user_function import describe_exception, is_function_reference

_RECORDS = 4
_TOLERANCE: Final = 1e-3


def verify_trainable(
    model: nn.Module, config: Config, *, input_shape: tuple[int, ...], is_discrete: bool
) -> None:
    """Refuse a model that local training would stumble over at every site.

    A model that ships is only checked against the rules of differential privacy. One of the
    user's own takes a step, the run's own kind, on made-up records.

    Args:
        model: The start model; left as it is.
        config: The resolved config.
        input_shape: Shape of one record.
        is_discrete: Whether records are ids and not quantities.

    Raises:
        ConfigError: It breaks a rule of differential privacy, or raises while it trains.
    """
    private = config.privacy.covers_records
    if private:
        verify_private_model(model)
    if not is_function_reference(config.model.name):
        return
    features = _make_features(input_shape, is_discrete=is_discrete)
    try:
        with torch.random.fork_rng(devices=[]):
            if private:
                verify_records_independent(model, torch.from_numpy(features))
                _verify_followed(copy.deepcopy(model), config, torch.from_numpy(features))
            _take_step(copy.deepcopy(model), config, features)
    except FedtrainError:
        raise
    except Exception as error:
        raise ConfigError(
            f"model.name = '{config.model.name}' cannot be trained ({describe_exception(error)});"
            " mend it, --debug shows where"
        ) from error


def _make_features(input_shape: tuple[int, ...], *, is_discrete: bool) -> np.ndarray:
    """Return records that differ from each other; the ids 0 and 1 exist in every vocabulary."""
    generator = np.random.default_rng(0)
    if is_discrete:
        features = generator.integers(0, 2, (_RECORDS, *input_shape), dtype=np.int64)
        features[0], features[1] = 0, 1
        return features
    return generator.normal(size=(_RECORDS, *input_shape)).astype(np.float32)


def _verify_followed(model: nn.Module, config: Config, features: Tensor) -> None:
    """Refuse a model that uses a parameter other than by calling the layer that holds it.

    A record's gradient is put together from what its layers were given, so that such a use would
    be missing from it. Batches of two sizes, for a layer that mistakes another dimension for the
    record's.
    """
    compute_loss = build_loss(config)
    keeper = make_book_keeper(model, loss=compute_loss)
    model.eval()  # no dropout: a layer of Opacus' draws its own
    for count in (len(features), len(features) - 1):
        batch = features[:count]
        labels = _make_targets(model, config, batch)
        found, _ = keeper.compute_clipped_sum(batch, labels, max_grad_norm=math.inf)
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        loss = compute_loss(model(batch), labels, reduction="sum")
        expected = differentiate(loss, list(parameters.values()))
        scale = max(float(gradient.abs().max()) for gradient in expected)
        for name, ours, theirs in zip(parameters, found, expected, strict=True):
            if float((ours - theirs).abs().max()) > _TOLERANCE * (1 + scale):
                raise ConfigError(
                    f"model: parameter '{name}' is used without calling the layer that holds it, so"
                    " that no record's gradient is known; call the layer under privacy.unit ="
                    " 'record'"
                )


def _make_targets(model: nn.Module, config: Config, features: Tensor) -> Tensor:
    """Return what the loss compares outputs with: zeros, or the records themselves."""
    return take_targets(features, _make_labels(model, config, features), config)


def _make_labels(model: nn.Module, config: Config, features: Tensor) -> Tensor:
    """Return labels of made-up records: the first class, or targets of 0."""
    if not has_targets(config):
        return torch.zeros(len(features), dtype=torch.int64)
    with torch.no_grad():
        return torch.zeros_like(model(features))


def _take_step(model: nn.Module, config: Config, features: np.ndarray) -> None:
    rate = 1.0 if config.training.sampling == "poisson" else None
    training = config.training.model_copy(
        update={"local_steps": 1, "local_epochs": None, "sample_rate": rate}
    )
    labels = _make_labels(model, config, torch.from_numpy(features)).numpy()
    trainer = LocalTrainer(model, config.model_copy(update={"training": training}))
    task = LocalTask(
        records=Split(features, labels, np.arange(len(features))),
        start=ModelState(model).read(),
        shuffling=torch.Generator().manual_seed(0),
        sampling=SecureGenerator.from_seed(0, "trial sampling") if rate else None,
        noise=SecureGenerator.from_seed(0, "trial noise") if rate else None,
    )
    list(trainer.train([task]))  # a result that is not finite says nothing about real records

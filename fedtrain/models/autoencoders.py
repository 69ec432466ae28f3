"""Networks that make a record again from fewer numbers; what they make badly is unusual.

Shapes: n records, f numbers of one, z of its code.

References:
    Kingma and Welling 2014 (arXiv:1312.6114): the variational autoencoder, its equation for the
    divergence of a normal code from the standard one.
"""

from collections import OrderedDict
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from fedtrain.config import ModelSection
from fedtrain.errors import ConfigError
from fedtrain.models.feed_forward import read_hidden
from fedtrain.models.layers import make_activation, make_dropout
from fedtrain.models.sizes import Sizes

LOG_VARIANCE_LIMIT: Final = 10.0  # beyond, exp leaves float32's sound range


class Reconstruction(NamedTuple):
    """What a variational autoencoder makes in training.

    Attributes:
        outputs: `(n, f)`.
        divergence: Of each record's code from a standard normal one, in nats over f, `(n,)`.
    """

    outputs: Tensor
    divergence: Tensor


def build_autoencoder(section: ModelSection, sizes: Sizes) -> nn.Sequential:
    """Build an encoder of `section.hidden` units, the last the code, and its mirror image."""
    hidden = _read_code(section, sizes)
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    layers["encoder"] = _stack(section, (sizes.features, *hidden))
    layers["decoder"] = _stack(section, (*reversed(hidden), sizes.features), open_end=True)
    return nn.Sequential(layers)


class VariationalAutoencoder(nn.Module):
    """An autoencoder whose code is drawn in training, and in use its mean."""

    def __init__(self, section: ModelSection, sizes: Sizes) -> None:
        super().__init__()
        hidden = _read_code(section, sizes)
        widths = (sizes.features, *hidden[:-1])
        self.flatten = nn.Flatten()
        self.encoder = _stack(section, widths)
        self.mean = nn.Linear(widths[-1], hidden[-1])
        self.log_variance = nn.Linear(widths[-1], hidden[-1])
        self.decoder = _stack(section, (*reversed(hidden), sizes.features), open_end=True)

    def forward(self, records: Tensor) -> Tensor | Reconstruction:
        """Return `(n, f)`; in training with each record's divergence."""
        values = self.flatten(records)
        encoded = self.encoder(values)
        mean: Tensor = self.mean(encoded)
        if not self.training:
            outputs: Tensor = self.decoder(mean)
            return outputs
        log_variance = self.log_variance(encoded).clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)
        code = mean + torch.exp(log_variance / 2) * torch.randn_like(mean)
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2
        return Reconstruction(self.decoder(code), divergence / values.shape[1])


def _stack(
    section: ModelSection, widths: tuple[int, ...], *, open_end: bool = False
) -> nn.Sequential:
    """Return linear layers, each followed by an activation, unless `open_end` the last one too."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number in range(1, len(widths)):
        layers[f"linear{number}"] = nn.Linear(widths[number - 1], widths[number])
        if open_end and number == len(widths) - 1:
            break
        layers[f"activation{number}"] = make_activation(section)
        layers.update(make_dropout(section, f"dropout{number}"))
    return nn.Sequential(layers)


def _read_code(section: ModelSection, sizes: Sizes) -> tuple[int, ...]:
    hidden = read_hidden(section)
    if not hidden or sizes.classes != sizes.features:
        raise ConfigError(
            f"model.name = '{section.name}' makes records of {sizes.features} numbers again, it is"
            f" to have {sizes.classes} outputs and model.hidden = {list(hidden)}; set data.task ="
            " 'anomaly' and e.g. model.hidden = [16, 4]"
        )
    return hidden

"""Logistic regression and the multilayer perceptron."""

from collections import OrderedDict

from torch import nn

from fedtrain.config import ModelSection
from fedtrain.errors import ConfigError
from fedtrain.models.layers import make_activation, make_dropout
from fedtrain.models.sizes import Sizes


def build_logistic(section: ModelSection, sizes: Sizes) -> nn.Sequential:
    """Build multinomial logistic regression: flatten and one linear layer."""
    del section
    return nn.Sequential(
        OrderedDict(flatten=nn.Flatten(), linear=nn.Linear(sizes.features, sizes.classes))
    )


def build_mlp(section: ModelSection, sizes: Sizes) -> nn.Sequential:
    """Build a multilayer perceptron with `section.hidden` units."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    width = sizes.features
    for number, units in enumerate(read_hidden(section), start=1):
        layers[f"linear{number}"] = nn.Linear(width, units)
        layers[f"activation{number}"] = make_activation(section)
        layers.update(make_dropout(section, f"dropout{number}"))
        width = units
    layers["output"] = nn.Linear(width, sizes.classes)
    return nn.Sequential(layers)


def read_hidden(section: ModelSection) -> tuple[int, ...]:
    """Return the units of the hidden layers.

    Raises:
        ConfigError: A layer has none.
    """
    for units in section.hidden:
        if units < 1:
            raise ConfigError(
                f"model.hidden = {list(section.hidden)} has a layer of {units} units; each needs at"
                " least 1"
            )
    return section.hidden

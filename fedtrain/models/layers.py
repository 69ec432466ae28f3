"""Activations by name, and where dropout goes."""

from typing import Final

from torch import nn

from fedtrain.config import ModelSection

ACTIVATIONS: Final[dict[str, type[nn.Module]]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "mish": nn.Mish,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
}
_DEFAULTS: Final = {"cnn_small": "tanh", "transformer": "gelu", "transformer_tabular": "gelu"}


def resolve_activation(section: ModelSection) -> str:
    """Return the name of the activation, the architecture's default where none is configured."""
    return section.activation or _DEFAULTS.get(section.name, "relu")


def make_activation(section: ModelSection) -> nn.Module:
    """Return a layer of the configured activation."""
    return ACTIVATIONS[resolve_activation(section)]()


def make_dropout(section: ModelSection, name: str) -> dict[str, nn.Module]:
    """Return a dropout layer by its name, or nothing where none is configured."""
    return {name: nn.Dropout(section.dropout)} if section.dropout else {}

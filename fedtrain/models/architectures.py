"""The named architectures: plain feed-forward networks without state between records.

Each builder returns an `nn.Sequential` with named layers that maps a batch `(n, *input_shape)` of
float32 to logits `(n, classes)`, for any n, 0 included. None has a buffer or a layer that mixes
records, so that each can be trained under differential privacy and over several sites at once.

Shapes: n records, images of `(channels, height, width)` or `(height, width)` for one channel.

References:
    McMahan et al. 2017 (arXiv:1602.05629v4), section 3: `cnn`, and `mlp` with
    `hidden = (200, 200)`.
    Papernot et al. 2021 (arXiv:2007.14191): `cnn_small`, with tanh.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from torch import nn

from fedtrain.config import ModelSection
from fedtrain.errors import ConfigError

Builder = Callable[[ModelSection, tuple[int, ...], int], nn.Module]

ACTIVATIONS: Final[dict[str, type[nn.Module]]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}
NORM_GROUPS: Final = 8
SMALL_IMAGE: Final = 14  # below this the 8x8 and 4x4 kernels of cnn_small leave nothing over


def resolve_activation(section: ModelSection) -> str:
    """Return the name of the activation, the architecture's default where none is configured."""
    if section.activation is not None:
        return section.activation
    return "tanh" if section.name == "cnn_small" else "relu"


def build_logistic(
    section: ModelSection, input_shape: tuple[int, ...], classes: int
) -> nn.Sequential:
    """Build multinomial logistic regression: flatten and one linear layer."""
    del section
    return nn.Sequential(
        OrderedDict(flatten=nn.Flatten(), linear=nn.Linear(_count(input_shape), classes))
    )


def build_mlp(section: ModelSection, input_shape: tuple[int, ...], classes: int) -> nn.Sequential:
    """Build a multilayer perceptron with `section.hidden` units."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    width = _count(input_shape)
    for number, units in enumerate(section.hidden, start=1):
        if units < 1:
            raise ConfigError(
                f"model.hidden = {list(section.hidden)} has a layer of {units} units; each needs at"
                " least 1"
            )
        layers[f"linear{number}"] = nn.Linear(width, units)
        layers[f"activation{number}"] = _make_activation(section)
        width = units
    layers["output"] = nn.Linear(width, classes)
    return nn.Sequential(layers)


def build_cnn(section: ModelSection, input_shape: tuple[int, ...], classes: int) -> nn.Sequential:
    """Build McMahan's CNN: two 5x5 convolutions, each pooled by 2, and 512 units."""
    return _build_mcmahan(section, input_shape, classes, normalise=False)


def build_cnn_groupnorm(
    section: ModelSection, input_shape: tuple[int, ...], classes: int
) -> nn.Sequential:
    """Build McMahan's CNN with a GroupNorm after each convolution."""
    return _build_mcmahan(section, input_shape, classes, normalise=True)


def build_cnn_small(
    section: ModelSection, input_shape: tuple[int, ...], classes: int
) -> nn.Sequential:
    """Build a CNN of about 26,000 parameters that learns under tight differential privacy.

    Images below `SMALL_IMAGE` pixels get 3x3 kernels in place of 8x8 and 4x4.
    """
    channels, height, width = _read_image_shape(section, input_shape, minimum=6)
    small = min(height, width) < SMALL_IMAGE
    first = nn.Conv2d(channels, 16, 3, 1, 1) if small else nn.Conv2d(channels, 16, 8, 2, 3)
    second = nn.Conv2d(16, 32, 3, 2) if small else nn.Conv2d(16, 32, 4, 2)
    kernel = 3 if small else 4
    sides = [side if small else side // 2 for side in (height, width)]  # after the first
    sides = [(side - 1 - kernel) // 2 for side in sides]  # pool, the second, pool
    layers = OrderedDict(
        **_shape_layers(input_shape),
        conv1=first,
        activation1=_make_activation(section),
        pool1=nn.MaxPool2d(2, 1),
        conv2=second,
        activation2=_make_activation(section),
        pool2=nn.MaxPool2d(2, 1),
        flatten=nn.Flatten(),
        linear=nn.Linear(32 * sides[0] * sides[1], 32),
        activation3=_make_activation(section),
        output=nn.Linear(32, classes),
    )
    return nn.Sequential(layers)


ARCHITECTURES: Final[dict[str, Builder]] = {
    "logistic": build_logistic,
    "mlp": build_mlp,
    "cnn": build_cnn,
    "cnn_groupnorm": build_cnn_groupnorm,
    "cnn_small": build_cnn_small,
}


def _build_mcmahan(
    section: ModelSection, input_shape: tuple[int, ...], classes: int, *, normalise: bool
) -> nn.Sequential:
    channels, height, width = _read_image_shape(section, input_shape, minimum=4)
    layers: OrderedDict[str, nn.Module] = OrderedDict(_shape_layers(input_shape))
    for number, filters in enumerate((32, 64), start=1):
        layers[f"conv{number}"] = nn.Conv2d(channels, filters, 5, padding=2)
        if normalise:
            layers[f"norm{number}"] = nn.GroupNorm(NORM_GROUPS, filters)
        layers[f"activation{number}"] = _make_activation(section)
        layers[f"pool{number}"] = nn.MaxPool2d(2)
        channels = filters
    layers["flatten"] = nn.Flatten()
    layers["linear"] = nn.Linear(64 * (height // 4) * (width // 4), 512)
    layers["activation3"] = _make_activation(section)
    layers["output"] = nn.Linear(512, classes)
    return nn.Sequential(layers)


def _read_image_shape(
    section: ModelSection, input_shape: tuple[int, ...], *, minimum: int
) -> tuple[int, int, int]:
    if len(input_shape) not in (2, 3):
        raise ConfigError(
            f"model.name = '{section.name}' needs images of (channels, height, width), records have"
            f" shape {input_shape}; set model.name = 'mlp' or 'logistic'"
        )
    channels, height, width = input_shape if len(input_shape) == 3 else (1, *input_shape)
    if min(height, width) < minimum:
        raise ConfigError(
            f"model.name = '{section.name}' needs images of at least {minimum}x{minimum} pixels,"
            f" records have {height}x{width} (channels come first); set model.name = 'mlp' or"
            " 'logistic'"
        )
    return channels, height, width


def _shape_layers(input_shape: tuple[int, ...]) -> dict[str, nn.Module]:
    """Return the layer that gives images without a channel dimension one."""
    if len(input_shape) == 3:
        return {}
    return {"channel": nn.Unflatten(1, (1, input_shape[0]))}


def _make_activation(section: ModelSection) -> nn.Module:
    return ACTIVATIONS[resolve_activation(section)]()


def _count(input_shape: tuple[int, ...]) -> int:
    count = 1
    for size in input_shape:
        count *= size
    return count

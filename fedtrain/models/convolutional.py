"""Convolutional networks for small images.

Shapes: images of `(channels, height, width)` or `(height, width)` for one channel.

References:
    McMahan et al. 2017 (arXiv:1602.05629v4), section 3: `cnn`.
    Papernot et al. 2021 (arXiv:2007.14191): `cnn_small`, with tanh.
"""

from collections import OrderedDict
from typing import Final

from torch import nn

from fedtrain.config import ModelSection
from fedtrain.errors import ConfigError
from fedtrain.models.layers import make_activation, make_dropout
from fedtrain.models.pooling import MaxPool
from fedtrain.models.sizes import Sizes

NORM_GROUPS: Final = 8
SMALL_IMAGE: Final = 14  # below this the 8x8 and 4x4 kernels of cnn_small leave nothing over


def build_cnn(section: ModelSection, sizes: Sizes) -> nn.Sequential:
    """Build McMahan's CNN: two 5x5 convolutions, each pooled by 2, and 512 units."""
    return _build_mcmahan(section, sizes, normalise=False)


def build_cnn_groupnorm(section: ModelSection, sizes: Sizes) -> nn.Sequential:
    """Build McMahan's CNN with a GroupNorm after each convolution."""
    return _build_mcmahan(section, sizes, normalise=True)


def build_cnn_small(section: ModelSection, sizes: Sizes) -> nn.Sequential:
    """Build a CNN of about 26,000 parameters that learns under tight differential privacy.

    Images below `SMALL_IMAGE` pixels get 3x3 kernels in place of 8x8 and 4x4.
    """
    channels, height, width = read_image_shape(section, sizes.input_shape, minimum=6)
    small = min(height, width) < SMALL_IMAGE
    first = nn.Conv2d(channels, 16, 3, 1, 1) if small else nn.Conv2d(channels, 16, 8, 2, 3)
    second = nn.Conv2d(16, 32, 3, 2) if small else nn.Conv2d(16, 32, 4, 2)
    kernel = 3 if small else 4
    sides = [side if small else side // 2 for side in (height, width)]  # after the first
    sides = [(side - 1 - kernel) // 2 for side in sides]  # pool, the second, pool
    layers = OrderedDict(
        **shape_image(sizes.input_shape),
        conv1=first,
        activation1=make_activation(section),
        pool1=MaxPool(2, 1),
        conv2=second,
        activation2=make_activation(section),
        pool2=MaxPool(2, 1),
        flatten=nn.Flatten(),
        linear=nn.Linear(32 * sides[0] * sides[1], 32),
        activation3=make_activation(section),
        **make_dropout(section, "dropout"),
        output=nn.Linear(32, sizes.classes),
    )
    return nn.Sequential(layers)


def _build_mcmahan(section: ModelSection, sizes: Sizes, *, normalise: bool) -> nn.Sequential:
    channels, height, width = read_image_shape(section, sizes.input_shape, minimum=4)
    layers: OrderedDict[str, nn.Module] = OrderedDict(shape_image(sizes.input_shape))
    for number, filters in enumerate((32, 64), start=1):
        layers[f"conv{number}"] = nn.Conv2d(channels, filters, 5, padding=2)
        if normalise:
            layers[f"norm{number}"] = nn.GroupNorm(NORM_GROUPS, filters)
        layers[f"activation{number}"] = make_activation(section)
        layers[f"pool{number}"] = MaxPool(2)
        channels = filters
    layers["flatten"] = nn.Flatten()
    layers["linear"] = nn.Linear(64 * (height // 4) * (width // 4), 512)
    layers["activation3"] = make_activation(section)
    layers.update(make_dropout(section, "dropout"))
    layers |= make_dropout(section, "dropout")
    layers["output"] = nn.Linear(512, sizes.classes)
    return nn.Sequential(layers)


def read_image_shape(
    section: ModelSection, input_shape: tuple[int, ...], *, minimum: int
) -> tuple[int, int, int]:
    """Return channels, height and width of an image.

    Raises:
        ConfigError: Records are no images, or smaller than `minimum` pixels.
    """
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


def shape_image(input_shape: tuple[int, ...]) -> dict[str, nn.Module]:
    """Return the layer that gives images without a channel dimension one."""
    if len(input_shape) == 3:
        return {}
    return {"channel": nn.Unflatten(1, (1, input_shape[0]))}

"""Residual networks with GroupNorm, which keeps no statistics and mixes no records.

References:
    He et al. 2016 (arXiv:1512.03385): the network for small images, three stages of 16, 32 and 64
    filters. Wu and He 2018 (arXiv:1803.08494): GroupNorm.
"""

from collections import OrderedDict
from typing import Final

from torch import Tensor, nn

from fedtrain.config import ModelSection
from fedtrain.models.convolutional import NORM_GROUPS, read_image_shape, shape_image
from fedtrain.models.layers import make_activation, make_dropout
from fedtrain.models.sizes import Sizes

STAGES: Final = (16, 32, 64)
SMALLEST: Final = 4  # what two halvings leave is still a pixel


class Block(nn.Module):
    """Two 3x3 convolutions, normalised, and a way around them."""

    def __init__(self, section: ModelSection, channels: int, filters: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(NORM_GROUPS, filters)
        self.activation1 = make_activation(section)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(NORM_GROUPS, filters)
        self.activation2 = make_activation(section)
        self.around: nn.Module = nn.Identity()
        if stride != 1 or channels != filters:
            self.around = nn.Conv2d(channels, filters, 1, stride, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return `(n, filters, height / stride, width / stride)`."""
        inner = self.activation1(self.norm1(self.conv1(images)))
        outputs: Tensor = self.activation2(self.norm2(self.conv2(inner)) + self.around(images))
        return outputs


def build_resnet(section: ModelSection, sizes: Sizes) -> nn.Sequential:
    """Build a residual network of `2 + 6 * section.layers` layers with weights.

    `layers` is the blocks of a stage, 1 by default (ResNet-8); 3 makes ResNet-20.
    """
    channels, _, _ = read_image_shape(section, sizes.input_shape, minimum=SMALLEST)
    layers: OrderedDict[str, nn.Module] = OrderedDict(shape_image(sizes.input_shape))
    layers["conv"] = nn.Conv2d(channels, STAGES[0], 3, padding=1, bias=False)
    layers["norm"] = nn.GroupNorm(NORM_GROUPS, STAGES[0])
    layers["activation"] = make_activation(section)
    width = STAGES[0]
    for stage, filters in enumerate(STAGES, start=1):
        for number in range(1, (section.layers or 1) + 1):
            stride = 2 if stage > 1 and number == 1 else 1
            layers[f"block{stage}_{number}"] = Block(section, width, filters, stride=stride)
            width = filters
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers.update(make_dropout(section, "dropout"))
    layers["output"] = nn.Linear(width, sizes.classes)
    return nn.Sequential(layers)

"""Max pooling has the bytes of PyTorch's, on the way there and on the way back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedtrain.models.pooling import MaxPool

SPECIAL = torch.tensor([0.0, -0.0, 1.0, 1.0, -1.0, float("inf"), -float("inf"), float("nan")])


def draw_images(shape, *, seed, special):
    generator = torch.Generator().manual_seed(seed)
    if special:
        return SPECIAL[torch.randint(len(SPECIAL), shape, generator=generator)]
    return torch.randint(-3, 4, shape, generator=generator) / 3  # many ties


def pool(layer, images):
    """Return outputs and the gradient by the images, as bytes."""
    images = images.clone().requires_grad_()
    pooled = layer(images)
    weights = torch.arange(1.0, pooled.numel() + 1).view_as(pooled).sin()
    (gradient,) = torch.autograd.grad(pooled, images, weights)
    assert pooled.is_contiguous()
    assert gradient.is_contiguous()
    return pooled.detach().numpy().tobytes(), gradient.numpy().tobytes()


@given(
    shape=st.tuples(*(st.integers(*bounds) for bounds in ((0, 5), (1, 40), (2, 9), (2, 9)))),
    windows=st.sampled_from([(2, 1), (2, 2), (2, None)]),
    seed=st.integers(0, 2**32),
    special=st.booleans(),
)
def test_bytes_are_those_of_torch(shape, windows, seed, special):
    images = draw_images(shape, seed=seed, special=special)
    assert pool(MaxPool(*windows), images) == pool(nn.MaxPool2d(*windows), images)


def test_windows_of_another_stride_are_told_apart():
    images = draw_images((2, 3, 6, 6), seed=0, special=False)
    assert pool(MaxPool(2, 1), images) != pool(nn.MaxPool2d(2, 2), images)


def test_gradient_can_be_differentiated_again():
    images = torch.rand(2, 3, 5, 5, dtype=torch.float32, requires_grad=True)
    for layer in (MaxPool(2, 1), nn.MaxPool2d(2, 1)):
        (first,) = torch.autograd.grad((layer(images) ** 3).sum(), images, create_graph=True)
        (second,) = torch.autograd.grad((first**2).sum(), images)
        if isinstance(layer, MaxPool):
            expected = second
    assert torch.equal(second, expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_numbers_are_pooled_too(dtype):
    images = torch.rand(2, 3, 5, 5).to(dtype)
    assert torch.equal(MaxPool(2)(images), nn.MaxPool2d(2)(images))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_trace_shows_the_plain_operation():
    traced = torch.jit.trace(MaxPool(2, 1), torch.rand(1, 2, 4, 4))
    assert "aten::max_pool2d" in str(traced.graph)

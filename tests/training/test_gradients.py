"""The gradients that the engine gives are those of the public function."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from fedtrain.training.gradients import differentiate


def make_loss(model: nn.Module, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(5, 3, generator=generator).to(dtype)
    return functional.cross_entropy(model(inputs), torch.tensor([0, 1, 1, 0, 1]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_equal_the_public_function(dtype):
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).to(dtype)
    parameters = list(model.parameters())
    expected = torch.autograd.grad(make_loss(model, dtype), parameters)
    found = differentiate(make_loss(model, dtype), parameters)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert all(p.grad is None for p in parameters)


def test_gradients_of_unused_parameters_are_zero():
    model, unused = nn.Linear(3, 2), nn.Parameter(torch.ones(2))
    *_, gradient = differentiate(make_loss(model, torch.float32), [*model.parameters(), unused])
    assert torch.equal(gradient, torch.zeros(2))


def test_gradients_of_a_loss_without_parameters_are_refused():
    with pytest.raises(RuntimeError, match="does not require grad"):
        differentiate(torch.ones(()), [nn.Parameter(torch.ones(2))])


def test_gradients_free_the_graph():
    parameter = nn.Parameter(torch.ones(2))
    loss = (parameter * parameter).sum()
    differentiate(loss, [parameter])
    with pytest.raises(RuntimeError, match="second time"):
        differentiate(loss, [parameter])

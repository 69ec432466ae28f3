"""Weights of few bits: their levels, and steps that see them rounded."""

import numpy as np
import pytest
import torch
from torch import nn

from fedtrain.params import Layout
from fedtrain.training.quantisation import RoundedWeights, round_model, round_weight


@pytest.mark.parametrize("bits", [2, 8])
def test_a_rounded_weight_has_at_most_so_many_levels(bits):
    weight = torch.linspace(-1.5, 0.7, 2000).reshape(40, 50)
    assert len(round_weight(weight, bits).unique()) < 2**bits


def test_rounding_moves_a_weight_by_half_a_step_at_most():
    weight = torch.randn(30, 30, generator=torch.Generator().manual_seed(0))
    step = weight.abs().max() / 127
    assert (round_weight(weight, 8) - weight).abs().max() <= step / 2 * (1 + 1e-4)


def test_zeros_stay_zeros():
    assert not round_weight(torch.zeros(3, 3), 8).any()
    assert round_weight(torch.tensor([[0.0, 0.3], [1.0, -1.0]]), 8)[0, 0] == 0


def test_a_rounded_model_keeps_its_biases():
    layout = Layout(("weight", "bias"), ((2, 2), (2,)))
    vector = np.array([1, 0.501, 0.2, -0.3, 0.12345, 0.54321], np.float32)
    rounded = round_model(layout, vector, 4)
    assert (rounded[4:] == vector[4:]).all()
    np.testing.assert_allclose(rounded[:4] * 7, [7, 4, 1, -2], rtol=1e-6)


def test_a_gradient_is_that_of_the_rounded_weights():
    layer = nn.Linear(4, 1, bias=False)
    rounded = RoundedWeights(list(layer.parameters()), 2)
    exact = layer.weight.detach().clone()
    rounded.round()
    layer(torch.ones(1, 4)).square().sum().backward()
    expected = 2 * round_weight(exact, 2).sum()
    torch.testing.assert_close(layer.weight.grad, expected.expand(1, 4))


def test_exact_weights_come_back():
    layer = nn.Linear(5, 4)
    exact = layer.weight.detach().clone()
    rounded = RoundedWeights(list(layer.parameters()), 8)
    rounded.round()
    assert not torch.equal(layer.weight, exact)
    rounded.restore()
    assert torch.equal(layer.weight, exact)

"""Start weights by name, from a scenario's text to each kind of layer."""

import pytest
import torch
from torch import nn

from fedtrain.config import parse_config
from fedtrain.models.registry import build_model

IDS = torch.int64
CASES = {
    "mlp": ("hidden = [64]", (60,), torch.float32),
    "lstm": ("hidden = [64]", (9,), IDS),
    "gru": ("hidden = [64]", (9, 30), torch.float32),
    "transformer": ("embedding = 64", (9,), IDS),
    "transformer_tabular": ("embedding = 64", (9,), torch.float32),
}


def build(name, keys):
    own, shape, dtype = CASES[name]
    config = parse_config(f'[model]\nname = "{name}"\n{own}\n{keys}')
    generator = torch.Generator().manual_seed(0)
    return build_model(
        config.model, input_shape=shape, classes=20, generator=generator, input_dtype=dtype
    )


def find_weights(model, dimensions):
    kinds = (nn.Linear, nn.LSTM, nn.GRU)
    layers = [module for module in model.modules() if isinstance(module, kinds)]
    found = [part for layer in layers for part in layer.parameters(recurse=False)]
    return [part.detach() for part in found if part.dim() == dimensions]


@pytest.mark.parametrize("name", CASES)
def test_xavier_fills_the_range_that_follows_from_both_widths(name):
    for weight in find_weights(build(name, 'initialisation = "xavier"'), 2):
        bound = (6 / sum(weight.shape)) ** 0.5
        assert 0.98 * bound < float(weight.abs().max()) <= bound


@pytest.mark.parametrize("name", CASES)
def test_he_has_the_spread_that_follows_from_the_inputs(name):
    for weight in find_weights(build(name, 'initialisation = "he"'), 2):
        assert float(weight.std()) == pytest.approx((2 / weight.shape[1]) ** 0.5, rel=0.1)


@pytest.mark.parametrize("kind", ["xavier", "he"])
@pytest.mark.parametrize("name", CASES)
def test_biases_begin_at_zero_where_a_start_is_named(name, kind):
    named = build(name, f"initialisation = '{kind}'")
    assert not any(bias.any() for bias in find_weights(named, 1))
    assert any(bias.any() for bias in find_weights(build(name, ""), 1))


def test_tokens_and_places_begin_with_the_spread_that_is_asked_for():
    model = build("transformer", "embedding_stddev = 0.125")
    for table in (model.start.table, model.places.table):
        assert float(table.weight.detach().std()) == pytest.approx(0.125, rel=0.1)


def test_places_are_small_beside_tokens_where_no_spread_is_asked_for():
    model = build("transformer", "")
    assert float(model.start.table.weight.detach().std()) == pytest.approx(1, rel=0.1)
    assert float(model.places.table.weight.detach().std()) == pytest.approx(0.02, rel=0.1)

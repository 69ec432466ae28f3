"""What is frozen is not trained and not sent; adapters start as nothing and train like layers."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from fedtrain.config import ModelSection
from fedtrain.errors import ConfigError
from fedtrain.models.registry import build_described_model, build_model, describe_architecture
from fedtrain.models.trained_part import match_names
from fedtrain.params import Layout, ModelState
from fedtrain.training.dp_sgd import make_book_keeper

IMAGE, TABLE = (1, 28, 28), (12,)
SECTIONS = [
    (ModelSection(name="mlp", lora=("linear*",), lora_rank=2), IMAGE),
    (ModelSection(name="mlp", freeze=("*", "!output*")), IMAGE),
    (ModelSection(name="cnn", freeze=("conv*",), lora=("linear",)), IMAGE),
    (ModelSection(name="transformer_tabular", freeze=("*",), lora=("*", "!output")), TABLE),
]


def build(section, shape, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return build_model(section, input_shape=shape, classes=3, generator=generator)


def shake_adapters(model):
    """Give the factor that starts at zero some value, so that both have gradients."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_b.weight"):
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(1))


def compute_clipped_sum_plainly(model, x, y, *, max_grad_norm):
    parameters = [p for p in model.parameters() if p.requires_grad]
    total = [torch.zeros_like(p) for p in parameters]
    for i in range(len(y)):
        loss = functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
        gradients = torch.autograd.grad(loss, parameters)
        norm = float(torch.sqrt(sum((g**2).sum() for g in gradients)))
        for part, gradient in zip(total, gradients, strict=True):
            part += min(1.0, max_grad_norm / norm) * gradient
    return total


@pytest.mark.parametrize(("section", "shape"), SECTIONS)
def test_clip_is_over_the_trained_parameters_alone(section, shape):
    model = build(section, shape)
    shake_adapters(model)
    x = torch.randn(5, *shape, generator=torch.Generator().manual_seed(2))
    y = torch.tensor([0, 1, 2, 0, 1])
    found, _ = make_book_keeper(model).compute_clipped_sum(x, y, max_grad_norm=0.3)
    expected = compute_clipped_sum_plainly(model, x, y, max_grad_norm=0.3)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("section", "shape"), SECTIONS)
def test_vector_has_the_trained_parameters_alone(section, shape):
    model = build(section, shape)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert set(Layout.of(model).names) == trained
    assert trained < {name for name, _ in model.named_parameters()}


def test_writing_a_vector_leaves_what_is_frozen():
    model = build(*SECTIONS[1])
    before = {name: p.clone() for name, p in model.named_parameters()}
    state = ModelState(model)
    state.write(np.zeros(state.layout.size, np.float32))
    assert torch.equal(model.linear1.weight, before["linear1.weight"])
    assert not model.output.weight.any()


@pytest.mark.parametrize(("section", "shape"), [SECTIONS[0], SECTIONS[3]])
@pytest.mark.parametrize("training", [True, False])
def test_adapters_start_as_nothing_and_then_count(section, shape, training):
    plain = build(section.model_copy(update={"lora": None, "freeze": None}), shape).train(training)
    adapted = build(section, shape).train(training)
    x = torch.randn(4, *shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(adapted(x), plain(x))
        shake_adapters(adapted)
        assert not torch.allclose(adapted(x), plain(x))


@pytest.mark.parametrize(("section", "shape"), SECTIONS)
def test_described_model_trains_the_same_parameters(section, shape):
    description = describe_architecture(section, input_shape=shape, classes=3)
    rebuilt = build_described_model(description, torch.Generator())
    assert Layout.of(rebuilt) == Layout.of(build(section, shape))


def test_plain_description_is_as_it_was():
    assert not {"freeze", "lora", "lora_rank"} & set(
        describe_architecture(ModelSection(), input_shape=IMAGE, classes=3)
    )


def test_last_pattern_that_fits_decides():
    names = ["conv1.weight", "conv1.bias", "output.weight"]
    assert match_names(names, ["*", "!*.bias"]) == {"conv1.weight", "output.weight"}
    assert match_names(names, ["!*", "conv*"]) == {"conv1.weight", "conv1.bias"}


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"freeze": ("conv*",)}, "'conv\\*' fits nothing of this model"),
        ({"freeze": ("*",)}, "leaves nothing to train"),
        ({"lora": ("linear2",)}, "did you mean 'linear1'"),
        ({"lora": ("linear1",), "lora_rank": 33}, "above 32, the rank of layer 'linear1'"),
    ],
)
def test_pattern_in_vain_is_refused(keys, text):
    with pytest.raises(ConfigError, match=text):
        build(ModelSection(**keys), IMAGE)


def test_adapter_of_a_layer_that_is_not_called_is_refused(monkeypatch):
    from fedtrain.models import trained_part

    monkeypatch.setattr(trained_part.LowRankLinear, "forward", torch.nn.Linear.forward)
    with pytest.raises(ConfigError, match="'linear1' is not called"):
        build(*SECTIONS[0])

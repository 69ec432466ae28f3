"""What differential privacy forbids: each forbidden layer, and the permitted beside it."""

import pytest
import torch
from torch import nn

from fedtrain.config import ModelSection
from fedtrain.errors import ConfigError
from fedtrain.models.dp_rules import verify_private_model, verify_records_independent
from fedtrain.models.registry import build_model


class Centred(nn.Module):
    """Subtracts the batch mean: no layer's kind shows it."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs - inputs.mean(dim=0)


class Remembering(nn.Module):
    """Keeps the last batch's mean."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.mean = inputs.mean(dim=0)
        return inputs


@pytest.fixture
def inputs() -> torch.Tensor:
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("layer", "cure"),
    [
        (nn.BatchNorm1d(4), "GroupNorm"),
        (nn.BatchNorm2d(4).eval(), "GroupNorm"),
        (nn.BatchNorm3d(4, affine=False), "GroupNorm"),
        (nn.SyncBatchNorm(4), "GroupNorm"),
        (nn.LazyBatchNorm1d(), "GroupNorm"),
        (nn.InstanceNorm2d(4, track_running_stats=True), "track_running_stats=False"),
        (nn.LSTM(4, 4), "batch_first=True"),
        (nn.GRU(4, 4), "batch_first=True"),
        (nn.MultiheadAttention(4, 2), "batch_first=True"),
        (nn.TransformerEncoderLayer(4, 2, 8), "batch_first=True"),
        (nn.Softmax(dim=0), "dim=1"),
        (nn.Flatten(0), "start_dim=1"),
    ],
)
def test_forbidden_layer_is_named_with_its_cure(layer: nn.Module, cure: str) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(layer))
    with pytest.raises(ConfigError, match=rf"layer '1\.0.*{cure}"):
        verify_private_model(model)


@pytest.mark.parametrize(
    "layer",
    [
        nn.GroupNorm(2, 4),
        nn.LayerNorm(4),
        nn.InstanceNorm2d(4),
        nn.LSTM(4, 4, batch_first=True),
        nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
        nn.Softmax(dim=1),
        nn.Flatten(),
        nn.Dropout(0.5),
    ],
)
def test_permitted_layer_passes(layer: nn.Module) -> None:
    verify_private_model(nn.Sequential(nn.Linear(4, 4), layer))


@pytest.mark.parametrize("name", ["logistic", "mlp", "cnn", "cnn_groupnorm", "cnn_small"])
def test_named_architectures_pass(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    model = build_model(
        ModelSection(name=name), input_shape=(1, 28, 28), classes=10, generator=generator
    )
    verify_private_model(model)
    verify_records_independent(model, torch.randn(4, 1, 28, 28, generator=generator))


def test_model_that_is_itself_forbidden_is_refused() -> None:
    with pytest.raises(ConfigError, match="the model itself"):
        verify_private_model(nn.BatchNorm1d(4))


def test_mixing_without_a_layer_is_found(inputs: torch.Tensor) -> None:
    model = nn.Sequential(nn.Linear(4, 4), Centred())
    verify_private_model(model)
    with pytest.raises(ConfigError, match="other records of its batch"):
        verify_records_independent(model, inputs)


def test_buffer_that_remembers_records_is_found(inputs: torch.Tensor) -> None:
    model = nn.Sequential(Remembering(), nn.Linear(4, 2))
    with pytest.raises(ConfigError, match=r"buffer '0\.mean' changes"):
        verify_records_independent(model, inputs)
    assert torch.equal(model[0].mean, torch.zeros(4))


def test_dropout_is_no_mixing_and_the_random_state_stays(inputs: torch.Tensor) -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 2)).eval()
    before = torch.random.get_rng_state()
    verify_records_independent(model, inputs)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not model.training


def test_inputs_that_show_nothing_are_refused() -> None:
    for inputs in (torch.zeros(1, 4), torch.zeros(3, 4)):
        with pytest.raises(ValueError, match="2 different records"):
            verify_records_independent(nn.Linear(4, 2), inputs)

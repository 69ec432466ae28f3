"""The step on made-up records that a model of the user's own takes before a run."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from fedtrain.config import build_config
from fedtrain.errors import ConfigError
from fedtrain.params import ModelState
from fedtrain.training.trial import verify_trainable

OWN = {"model": {"name": "mine:build"}}
PRIVATE = {
    "privacy": {"unit": "record", "noise_multiplier": 1.0},
    "training": {"sampling": "poisson", "sample_rate": 0.1, "expected_batch_size": 4},
}


def verify(model: nn.Module, tree: dict, shape: tuple[int, ...] = (4,), *, ids: bool = False):
    verify_trainable(
        model,
        build_config(tree | {"secure_aggregation": {"mode": "off"}}),
        input_shape=shape,
        is_discrete=ids,
    )


@pytest.mark.parametrize("tree", [OWN, OWN | PRIVATE], ids=["plain", "private"])
def test_trial_leaves_model_and_random_state_as_they_were(tree):
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5), nn.Linear(3, 2))
    before, state = ModelState(model).read(), torch.get_rng_state()
    verify(model, tree)
    assert (ModelState(model).read() == before).all()
    assert torch.equal(torch.get_rng_state(), state)


def test_trial_gives_ids_to_a_model_of_tokens():
    model = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(12, 2))
    verify(model, OWN | PRIVATE, ids=True)


def test_trial_accepts_a_model_that_is_not_finite_on_made_up_records():
    class Fragile(nn.Linear):
        def forward(self, x):
            return super().forward(x) * torch.nan

    verify(Fragile(4, 2), OWN)


def test_trial_refuses_a_parameter_that_is_used_past_its_layer():
    class Past(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 3), nn.Linear(3, 2)

        def forward(self, x):
            return functional.linear(self.first(x), self.second.weight)

    verify(Past(), OWN)
    with pytest.raises(ConfigError, match=r"'second.weight' is used without calling"):
        verify(Past(), OWN | PRIVATE)


def test_shipped_model_is_checked_against_the_rules_of_privacy():
    with pytest.raises(ConfigError, match="BatchNorm1d"):
        verify(nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2)), PRIVATE)

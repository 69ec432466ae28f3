"""A pull towards the start: its gradient, its importances, and what it leaves of a guarantee."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from fedtrain.config import build_config
from fedtrain.data.shards import Split
from fedtrain.errors import ConfigError
from fedtrain.models.start import build_start_model
from fedtrain.params import ModelState
from fedtrain.training.local import LocalTask, LocalTrainer
from fedtrain.training.memory import build_memory, compute_importance

SIZES = {"input_shape": (6,), "classes": 3}
RECORDS = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
LABELS = np.arange(40) % 3


def make_model():
    return build_start_model(build_config({"model": {"name": "logistic"}}), **SIZES)


def train(model, memory, *, epochs=30):
    config = build_config(
        {"model": {"name": "logistic"}, "training": {"local_epochs": epochs, "learning_rate": 0.1}}
    )
    start = ModelState(model).read()
    trainer = LocalTrainer(model, config, memory=memory)
    shuffling = torch.Generator().manual_seed(0)
    task = LocalTask(Split(RECORDS, LABELS), start, shuffling, None, None)
    (update,) = trainer.train([task])
    return np.abs(update.vector - start)


@pytest.mark.parametrize("weighted", [False, True])
def test_gradient_is_that_of_the_penalty(weighted):
    model = make_model()
    importance = None
    if weighted:
        importance = {name: torch.rand_like(p) for name, p in model.named_parameters()}
    memory = build_memory(model, pull=0.3, importance=importance)
    parameters = list(model.parameters())
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.rand_like(parameter))
    zeros = [torch.zeros_like(p) for p in parameters]
    parts = zip(parameters, memory.start, memory.strengths, strict=True)
    penalty = sum((k / 2 * (p - s) ** 2).sum() for p, s, k in parts)
    expected = torch.autograd.grad(penalty, parameters)
    for ours, theirs in zip(memory.add(zeros, parameters), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_mean_strength_is_the_pull_whatever_the_importances_are():
    model = make_model()
    importance = {name: 7 * torch.rand_like(p) for name, p in model.named_parameters()}
    memory = build_memory(model, pull=0.3, importance=importance)
    assert float(torch.cat([k.reshape(-1) for k in memory.strengths]).mean()) == pytest.approx(0.3)


def test_stronger_pull_stays_nearer_to_the_start():
    moved = [
        train(make_model(), None if pull == 0 else build_memory(make_model(), pull=pull)).max()
        for pull in (0, 0.1, 5.0)
    ]
    assert moved[0] > moved[1] > moved[2]


def test_importance_is_the_fisher_information_of_a_logistic_model():
    model = make_model()
    found = compute_importance(model, RECORDS)["linear.bias"]
    p = functional.softmax(model(torch.from_numpy(RECORDS)), dim=1)
    torch.testing.assert_close(found, (p * (1 - p)).mean(dim=0).detach())


@pytest.mark.parametrize("broken", ["missing", "negative", "shape"])
def test_importance_that_does_not_fit_is_refused(broken):
    model = make_model()
    importance = {name: torch.ones_like(p) for name, p in model.named_parameters()}
    if broken == "missing":
        del importance["linear.bias"]
    else:
        wrong = -torch.ones(3) if broken == "negative" else torch.ones(4)
        importance["linear.bias"] = wrong
    with pytest.raises(ConfigError, match=r"no importance of 'linear\.bias'"):
        build_memory(model, pull=1.0, importance=importance)


def test_pull_without_a_start_is_refused():
    with pytest.raises(ConfigError, match=r"pulls towards model\.start_from"):
        build_config({"continual": {"pull": 0.1}})

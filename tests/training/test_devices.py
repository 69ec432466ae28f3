"""Where a model is computed, and in which precision."""

import numpy as np
import pytest
import torch
from torch import nn

from fedtrain.config import build_config
from fedtrain.data.shards import Split
from fedtrain.errors import ConfigError
from fedtrain.params import ModelState
from fedtrain.training.devices import find_device, read_gpu_seconds
from fedtrain.training.local import LocalTask, LocalTrainer

PRIVATE = {
    "privacy": {"unit": "record", "noise_multiplier": 1.0},
    "training": {"sampling": "poisson", "sample_rate": 0.1, "expected_batch_size": 8},
    "federation": {"weighting": "equal", "select": "last"},
}
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")


def train(**options):
    """Return a small model after some steps, and its metric sums."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 3))
    trainer = LocalTrainer(model, build_config({"training": {"local_epochs": 3}} | options))
    generator = np.random.default_rng(0)
    features = generator.normal(size=(64, 6)).astype(np.float32)
    split = Split(features, features[:, :3].argmax(1))
    task = LocalTask(
        records=split,
        start=ModelState(model).read(),
        shuffling=torch.Generator().manual_seed(0),
        sampling=None,
        noise=None,
    )
    (update,) = trainer.train([task])
    return update.vector, trainer.evaluate(update.vector, split)


def test_cpu_is_where_nothing_is_said():
    assert find_device(build_config({})).type == "cpu"


def test_auto_is_a_device_that_is_there():
    device = find_device(build_config({"simulation": {"device": "auto"}}))
    assert torch.zeros(1, device=device).sum() == 0


def test_auto_computes_protected_records_on_the_cpu():
    assert find_device(build_config(PRIVATE | {"simulation": {"device": "auto"}})).type == "cpu"


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_device_that_is_not_there_or_not_for_dp_sgd_is_refused(device):
    with pytest.raises(ConfigError, match=r"simulation\.device"):
        find_device(build_config(PRIVATE | {"simulation": {"device": device}}))


def test_mixed_precision_trains_about_as_far():
    (plain, sums), (mixed, others) = (
        train(),
        train(training={"local_epochs": 3, "mixed_precision": True}),
    )
    assert not np.array_equal(plain, mixed)
    assert np.abs(plain - mixed).max() < 0.05
    assert abs(sums.loss_sum - others.loss_sum) < 0.05 * sums.loss_sum


def test_mixed_precision_of_protected_records_is_refused():
    training = PRIVATE["training"] | {"mixed_precision": True}
    with pytest.raises(ConfigError, match=r"mixed_precision = true"):
        build_config(PRIVATE | {"training": training})


@gpu
def test_gpu_trains_as_the_cpu_does():
    (plain, sums), (there, others) = train(), train(simulation={"device": "cuda"})
    assert np.allclose(plain, there, atol=1e-4)
    assert others.loss_sum == pytest.approx(sums.loss_sum, rel=1e-3)


def test_work_on_the_cpu_occupies_no_gpu():
    before = read_gpu_seconds()
    train()
    assert read_gpu_seconds() == before


@gpu
def test_work_on_a_gpu_is_timed():
    before = read_gpu_seconds()
    train(simulation={"device": "cuda"})
    assert read_gpu_seconds() > before

"""The noise of a real round has the deviation that is claimed; a little less is noticed."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from fedtrain.config import parse_config
from fedtrain.data.shards import Split
from fedtrain.params import ModelState
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.resolution import resolve
from fedtrain.training.local import LocalTask, LocalTrainer

FEATURES, CLASSES = 10_000, 10
CLAIMED, CLIP, DIVISOR, RATE = 1.2, 0.5, 16.0, 0.5
CONFIG = f"""
[training]
sampling = "poisson"
sample_rate = 0.3
expected_batch_size = {DIVISOR}
local_steps = 1
learning_rate = {RATE}
[federation]
select = "last"
[privacy]
unit = "record"
noise_multiplier = {{noise}}
max_grad_norm = {CLIP}
"""
Z = 4.0  # a right deviation is rejected with probability 6e-5, and the seed is fixed


@pytest.fixture(scope="module")
def draw_noise():
    """Return the noise of a round: features are zero, so that the weights get nothing else."""

    def draw(noise_multiplier):
        model = nn.Linear(FEATURES, CLASSES)
        nn.init.zeros_(model.weight)
        task = LocalTask(
            records=Split(np.zeros((40, FEATURES), np.float32), np.arange(40) % CLASSES),
            start=ModelState(model).read(),
            shuffling=torch.Generator(),
            sampling=SecureGenerator.from_seed(0, "sampling"),
            noise=SecureGenerator.from_seed(0, "noise"),
        )
        config = resolve(parse_config(CONFIG.format(noise=noise_multiplier)))
        (update,) = LocalTrainer(model, config).train([task])
        return update.vector[: FEATURES * CLASSES].astype(np.float64)

    return draw


def is_as_claimed(noise):
    """Say whether a sample has the claimed deviation, to `Z` deviations of its estimate."""
    ratio = noise.std() / (CLAIMED * CLIP * RATE / DIVISOR)
    return abs(ratio - 1) * np.sqrt(2 * len(noise)) < Z


def test_noise_of_a_round_is_as_claimed(draw_noise):
    noise = draw_noise(CLAIMED)
    assert is_as_claimed(noise)
    assert stats.kstest(noise / noise.std(), "norm").pvalue > 1e-4


@pytest.mark.parametrize("factor", [2 / 3, 0.98, 1.02, 3 / 2])
def test_noise_of_another_deviation_is_noticed(draw_noise, factor):
    assert not is_as_claimed(draw_noise(factor * CLAIMED))

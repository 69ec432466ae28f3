"""Records are rebuilt from bare gradients, and not from what protects them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fedtrain.audit.first_layer import read_records, take_local_steps
from fedtrain.audit.inversion import Search, compute_gradient, read_first_layer, search_records
from fedtrain.audit.methods import AuditContext
from fedtrain.audit.reconstruction import _count_trials, find_rebuilt, match_records
from fedtrain.audit.victims import Victims
from fedtrain.audit.views import make_reference_plan
from fedtrain.config import Config
from fedtrain.data.shards import Split
from fedtrain.errors import ConfigError
from tests.audit.steps import build_mlp, load_batches, view

SEARCH = Search(0.0, 1.0, steps=150, starts=1)


def search(model, gradient, batch):
    found = search_records(
        model,
        gradient,
        torch.from_numpy(batch.labels),
        shape=(1, 8, 8),
        search=SEARCH,
        generator=torch.Generator().manual_seed(0),
    )
    return match_records(batch.features.astype(np.float64), found, value_range=1)


def guess_by_label(batch):
    """Match each record with the mean of its label: what is known without any gradient."""
    (known,) = load_batches(1, 300, seed=1)
    means = [known.features[known.labels == label].mean(axis=0) for label in batch.labels]
    return [
        match_records(record[None].astype(np.float64), mean[None], value_range=1)[0]
        for record, mean in zip(batch.features, means, strict=True)
    ]


def compute(model, batch):
    return compute_gradient(model, torch.from_numpy(batch.features), torch.from_numpy(batch.labels))


def read(model, gradient, batch):
    originals = batch.features.reshape(len(batch), -1).astype(np.float64)
    return read_records(model, gradient, originals, width=1.0).exact.mean()


def test_search_rebuilds_from_the_bare_gradient_alone():
    model, batches = build_mlp(), load_batches(4, 4)
    seen = view(model, batches)
    guess = guess_by_label(batches[0])
    rebuilt = {
        name: sum(find_rebuilt(search(model, gradient, batches[0]), guess))
        for name, gradient in seen.gradients.items()
    }
    assert rebuilt == {"raw": 4, "dp": 0, "masked": 0, "sum": 0}


def test_rebuilt_image_looks_like_the_record():
    model, batch = build_mlp(), load_batches(1, 2)[0]
    for match in search(model, compute(model, batch), batch):
        assert match.psnr > 40
        assert match.ssim > 0.99


@pytest.mark.parametrize(
    ("shape", "asked", "quick", "steps"),
    [
        ((1, 8, 8), None, False, 8),
        ((28, 28), None, False, 4),
        ((28, 28), 61, False, 16),
        ((28, 28), 61, True, 2),
        ((1, 8, 8), 4, True, 1),
    ],
)
def test_steps_attacked_are_those_asked_for_or_fewer_of_large_records(shape, asked, quick, steps):
    context = AuditContext(Path(), Config(), 0, quick, Path(), inverted_records=asked)
    victims = Victims(build_mlp(), (), shape, low=0.0, high=1.0, classes=10)
    assert _count_trials(context, victims) == steps


def test_first_layer_gives_a_single_record_away_to_the_digit():
    model, batch = build_mlp(), load_batches(1, 1)[0]
    candidates = read_first_layer(model, compute(model, batch))
    errors = np.abs(candidates - batch.features.reshape(1, -1)).max(axis=1)
    assert np.median(errors) < 1e-5


@pytest.mark.parametrize(("size", "least"), [(1, 1.0), (8, 0.9), (32, 0.4)])
def test_wide_first_layer_gives_whole_batches_away(size, least):
    model = build_mlp(1024, "relu")
    shares = [read(model, compute(model, b), b) for b in load_batches(8, size)]
    assert np.mean(shares) >= least


def test_local_steps_do_not_hide_records():
    model = build_mlp(1024, "relu")
    shares = [
        read(model, take_local_steps(model, batch, steps=5, learning_rate=0.1), batch)
        for batch in load_batches(8, 32)
    ]
    assert np.mean(shares) > 0.4


def test_a_clip_and_a_thousandth_of_noise_hide_every_record():
    model = build_mlp(1024, "relu")
    for size in (1, 8, 32):
        batches = load_batches(4, size)
        plan = replace(make_reference_plan(size), noise_multiplier=1e-3)
        hidden = view(model, batches, plan=plan).gradients["dp"]
        assert read(model, compute(model, batches[0]), batches[0]) > 0
        assert read(model, hidden, batches[0]) == 0


def test_mask_and_sum_hide_the_record_that_a_bare_gradient_gives_away():
    model, batches = build_mlp(), load_batches(4, 1)
    seen = view(model, batches).gradients
    found = {name: read(model, seen[name], batches[0]) for name in ("raw", "masked", "sum")}
    assert found == {"raw": 1, "masked": 0, "sum": 0}


def test_nothing_is_read_of_a_gradient_of_zero():
    model, batch = build_mlp(), load_batches(1, 1)[0]
    zero = torch.zeros(sum(p.numel() for p in model.parameters()))
    assert read(model, zero, batch) == 0


def test_model_that_does_not_begin_with_a_linear_layer_is_refused():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 10))
    batch = Split(np.zeros((1, 1, 8, 8), np.float32), np.zeros(1, np.int64))
    with pytest.raises(ConfigError, match="begins with a Conv2d"):
        read_first_layer(model, compute(model, batch))

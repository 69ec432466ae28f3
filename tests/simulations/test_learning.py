"""Losses, optimisers and schedules in whole federations."""

from pathlib import Path

import numpy as np
import pytest

from fedtrain.config import parse_config
from fedtrain.report.verify import verify_run
from fedtrain.resolution import resolve
from simulations.progress import Silence
from simulations.simulate import open_config, simulate, start

SMALL = """
[run]
name = "small"
[partition]
sites = 3
[model]
hidden = [8]
[training]
{0}
[federation]
{1}
"""
PRIVATE = """
[partition]
sites = 3
[model]
hidden = [8]
[training]
sampling = "poisson"
sample_rate = 0.1
local_steps = 2
expected_batch_size = 40
loss = "{0}"
optimiser = "rmsprop"
learning_rate = 0.001
schedule = "cosine"
[federation]
rounds = 2
[privacy]
unit = "record"
noise_multiplier = 1.0
[secure_aggregation]
max_update_norm = 64.0
"""


def run(path: Path, text: str):
    directory = start(open_config(resolve(parse_config(text))), path)
    simulate(directory, Silence())
    return directory


def test_run_ends_early_where_the_validation_loss_stalls(tmp_path):
    directory = run(tmp_path, SMALL.format("learning_rate = 1e-9", "patience = 1\nrounds = 8"))
    assert directory.state.round < 8
    assert directory.state.status == "finished"
    assert not [check for check in verify_run(directory.path) if check.failed]


def test_plateau_lowers_the_sites_rate_and_the_run_still_verifies(tmp_path):
    text = "schedule = 'plateau'\nschedule_rounds = 1\nlearning_rate = 1e-9"
    directory = run(tmp_path, SMALL.format(text, "rounds = 4"))
    factors = [line["rate_factor"] for line in directory.read_metrics()]
    assert factors[0] == 1
    assert factors[-1] < 1
    assert not [check for check in verify_run(directory.path) if check.failed]


def test_servers_schedule_shortens_its_step(tmp_path):
    text = SMALL.format("", "rounds = 1\n{0}")
    whole = run(tmp_path / "whole", text.format("")).load_checkpoint()["parameters"]
    half = run(tmp_path / "half", text.format("warmup_rounds = 1\nschedule = 'cosine'"))
    np.testing.assert_array_equal(half.load_checkpoint()["parameters"], whole)


@pytest.mark.parametrize("loss", ["focal", "bce"])
def test_loss_trains_under_record_level_privacy_inside_a_secure_sum(loss, tmp_path):
    directory = run(tmp_path, PRIVATE.format(loss))
    assert directory.state.round == 2
    assert directory.read_metrics()[-1]["epsilon"] > 0


@pytest.mark.parametrize("mode", ["off", "protocol"])
def test_mean_gradient_norm_is_sent_where_it_is_asked_for(mode, tmp_path):
    text = SMALL.format("gradient_norms = true\nlearning_rate = 1e-9", "rounds = 1")
    directory = run(tmp_path, f"{text}\n[secure_aggregation]\nmode = '{mode}'")
    assert 0.1 < directory.read_metrics()[0]["gradient_norm"] < 10
    assert not [check for check in verify_run(directory.path) if check.failed]

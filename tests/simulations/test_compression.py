"""Whole federations with fewer bytes a round and fewer weights."""

import numpy as np
import pytest

from fedtrain.cli import main
from fedtrain.config import parse_config
from fedtrain.protocol import PARAMETERS
from fedtrain.report.verify import verify_run
from fedtrain.resolution import resolve
from simulations.progress import Silence
from simulations.simulate import open_config, simulate, start

SMALL = """
[data]
validation_fraction = 0.0
[partition]
sites = 3
[model]
hidden = [64]
[federation]
weighting = "equal"
rounds = 2
evaluate_every = 0
"""
FEW = """
[compression]
update_bits = 4
largest_coordinate = 0.1
keep_share = 0.5
prune_share = 0.75
"""
PRIVATE = """
[training]
sampling = "poisson"
sample_rate = 0.1
local_steps = 2
expected_batch_size = 40
learning_rate = 0.5
[privacy]
unit = "record"
noise_multiplier = 1.0
"""


def run(path, text):
    directory = start(open_config(resolve(parse_config(text))), path)
    simulate(directory, Silence())
    return directory


def test_few_coordinates_in_few_bits_are_fewer_bytes(tmp_path):
    whole, few = (
        run(tmp_path / name, text).read_metrics()[0]["bytes_up"]
        for name, text in (("whole", SMALL), ("few", SMALL + FEW))
    )
    # 4,810 words of 4 bytes a site against 2,405 coordinates, five lanes of 6 bits in a word.
    assert whole - few == 3 * 4 * (4810 - 481)


@pytest.mark.parametrize("more", ["", PRIVATE])
def test_run_of_fewer_bytes_is_verified(tmp_path, more):
    directory = run(tmp_path, SMALL + FEW + more)
    assert directory.state.status == "finished"
    assert not [check for check in verify_run(directory.path) if check.failed]


def test_pruned_run_ends_with_the_zeros_asked_for(tmp_path):
    vector = run(tmp_path, SMALL + FEW).load_checkpoint()[PARAMETERS]
    assert np.count_nonzero(vector == 0) >= 0.75 * (64 * 64 + 640) - 1


@pytest.mark.parametrize("more", ["", PRIVATE])
def test_quantised_run_ends_on_the_levels_of_eight_bits(tmp_path, more):
    text = SMALL + "[compression]\nquantise_training = 8\n" + more
    directory = run(tmp_path, text)
    vector = directory.load_checkpoint()[PARAMETERS]
    assert len(np.unique(vector[: 64 * 64])) < 2**8
    assert not [check for check in verify_run(directory.path) if check.failed]


def test_check_says_how_much_is_sent_of_compressed_updates(capsys):
    assert main(["check", "digits_compressed"]) == 0
    assert "187.9 KiB down, 23.6 KiB up" in capsys.readouterr().out

"""A private federation from a public model: what is frozen stays, the rest is trained."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fedtrain import cli
from fedtrain.models.saved import load_saved_model
from fedtrain.models.start_file import find_start_file
from fedtrain.scenarios import find_scenario
from tests.simulations.test_simulate import PRIVATE, run

START = """
[model]
hidden = [64]
activation = "tanh"
start_from = "starts/digits.safetensors"
"""
TEXT = PRIVATE.replace("rounds = 4\nsites_per_round = 3", "rounds = 2").replace(
    "sites = 5", "sites = 3"
)
PROBE = TEXT + START + 'freeze = ["*", "!output*"]\n'
ADAPTED = TEXT + START + 'lora = ["linear1"]\nlora_rank = 2\n'


def load_start():
    return load_file(find_start_file(Path("starts/digits.safetensors")))


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    return run(tmp_path_factory.mktemp("probe") / "run", PROBE)


def test_frozen_layers_are_the_start_s_and_the_others_are_not(probe):
    state, start = load_saved_model(probe.path).model.state_dict(), load_start()
    assert torch.equal(state["linear1.weight"], start["linear1.weight"])
    assert not torch.equal(state["output.weight"], start["output.weight"])


def test_sites_send_the_trained_parameters_alone(probe):
    assert probe.load_checkpoint()["parameters"].shape == (64 * 10 + 10,)


def test_run_with_a_frozen_part_verifies(probe, capsys):
    assert cli.main(["verify", str(probe.path)]) == 0


def test_config_names_the_start_by_its_digest(probe):
    assert 'start_digest = "' in (probe.path / "config.toml").read_text()


def test_adapters_are_trained_and_the_layer_is_not(tmp_path):
    directory = run(tmp_path / "run", ADAPTED)
    state, start = load_saved_model(directory.path).model.state_dict(), load_start()
    assert torch.equal(state["linear1.weight"], start["linear1.weight"])
    assert state["linear1.lora_b.weight"].any()


@pytest.mark.slow
def test_public_start_is_worth_accuracy_at_one_epsilon(tmp_path):
    text = find_scenario("digits_transfer").read_text()
    scratch = "".join(line for line in text.splitlines(True) if not line.startswith("start_from"))
    started, drawn = (
        run(tmp_path / str(i), variant).read_metrics()[-1]["test_accuracy"]
        for i, variant in enumerate((text, scratch))
    )
    assert started > 0.8
    assert started > drawn + 0.1

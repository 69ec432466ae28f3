"""A run that goes on from another: it starts where that ended, and forgets less with a pull."""

import json

import numpy as np
import pytest
from safetensors.torch import load_file

from fedtrain import cli
from fedtrain.errors import ConfigError
from fedtrain.models.saved import load_saved_model
from fedtrain.scenarios import find_scenario
from fedtrain.use.forgetting import measure_forgetting
from fedtrain.use.run_model import load_run_model
from tests.simulations.test_simulate import PRIVATE, SMALL, run

# Other sites than in the first run, under differential privacy.
LATER = (
    PRIVATE.replace("rounds = 4\nsites_per_round = 3", "rounds = 2") + "[model]\nhidden = [16]\n"
)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return run(tmp_path_factory.mktemp("first") / "run", SMALL).path


@pytest.fixture(scope="module")
def later(first, tmp_path_factory):
    folder = tmp_path_factory.mktemp("later") / "run"
    return run(folder, LATER, f"model.start_from={first}", "continual.pull=0.01").path


def test_before_the_first_round_it_is_the_earlier_model(first, later):
    forgetting = measure_forgetting(load_run_model(later))
    earlier = json.loads((first / "metrics.jsonl").read_text().splitlines()[-1])
    assert forgetting.before["accuracy"] == pytest.approx(earlier["test_accuracy"], abs=0.02)
    assert forgetting.before != forgetting.after


def test_later_run_verifies(later):
    assert cli.main(["verify", str(later)]) == 0


def test_forgetting_is_printed(later, capsys):
    assert cli.main(["forgetting", str(later), "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    change = tree["after"]["accuracy"] - tree["before"]["accuracy"]
    assert tree["change"]["accuracy"] == pytest.approx(change)


def test_run_that_started_from_its_seed_can_forget_nothing(first):
    with pytest.raises(ConfigError, match="could forget nothing"):
        measure_forgetting(load_run_model(first))


def test_importance_is_written_beside_the_model_and_used(first, tmp_path, capsys):
    data, out = tmp_path / "earlier.npz", tmp_path / "start.safetensors"
    np.savez(data, x=np.random.default_rng(0).integers(0, 17, (20, 1, 8, 8)))
    assert cli.main(["importance", str(first), "--data", str(data), "--out", str(out)]) == 0
    assert "tells of the records in" in capsys.readouterr().err
    state = load_saved_model(first).model.state_dict()
    assert set(load_file(out)) == {*state, *(f"importance.{name}" for name in state)}
    changes = (f"model.start_from={out}", "continual.pull=0.01", "continual.importance=file")
    assert run(tmp_path / "run", LATER, *changes).state.status == "finished"


@pytest.mark.slow
def test_pull_by_importance_forgets_less(tmp_path):
    text = find_scenario("digits_continual").read_text()
    head, tail = text.split("[continual]")
    data = find_scenario("digits_continual").parent / "starts" / "digits.npz"
    known = []
    for variant in (text, head + tail[tail.index("[training]") :]):
        path = run(tmp_path / str(len(known)), variant).path
        known.append(measure_forgetting(load_run_model(path), data).after["accuracy"])
    assert known[0] > known[1] + 0.02

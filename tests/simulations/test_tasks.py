"""Tasks other than classification in whole federations: trained, summed up, saved, verified."""

from pathlib import Path

import pytest

from fedtrain.config import load_config
from fedtrain.models.saved import load_saved_model
from fedtrain.report.verify import verify_run
from fedtrain.resolution import resolve
from fedtrain.scenarios import find_scenario
from simulations.progress import Silence
from simulations.simulate import open_config, simulate, start


def run(name: str, path: Path, *overrides: str):
    config = resolve(load_config(find_scenario(name), overrides))
    directory = start(open_config(config), path)
    simulate(directory, Silence())
    return directory


@pytest.mark.parametrize(
    ("name", "metric", "outputs"),
    [
        ("diabetes", "test_r2", 1),
        ("loads", "test_rmse", 6),
        ("conditions", "test_subset_accuracy", 6),
        ("tumours", "test_recall_at_5", 30),
        ("digits_masked", "test_r2", 64),
    ],
)
def test_task_runs_and_verifies(name, metric, outputs, tmp_path):
    overrides = {"loads": ["model.name=logistic", "model.hidden=[32]"]}.get(name, [])
    directory = run(name, tmp_path, "federation.rounds=1", *overrides)
    assert metric in directory.read_metrics()[-1]
    assert not [check for check in verify_run(directory.path) if check.failed]
    assert load_saved_model(directory.path).architecture["classes"] == outputs


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("name", "metric", "least", "overrides"),
    [
        ("diabetes", "test_r2", 0.25, ()),  # ridge regression on all records: about 0.5
        ("loads", "test_r2", 0.7, ("federation.rounds=8",)),
        ("conditions", "test_auc", 0.8, ()),
        ("tumours", "test_auc", 0.9, ("federation.rounds=20",)),
    ],
)
def test_scenario_learns_its_task(name, metric, least, overrides, tmp_path):
    fast = ("federation.evaluate_every=0", "secure_aggregation.mode=arithmetic")
    if name in ("loads", "tumours"):
        fast = fast[1:]  # their patience needs evaluations
    metrics = run(name, tmp_path, *fast, *overrides).read_metrics()[-1]
    assert metrics[metric] > least


@pytest.mark.slow
def test_linear_probe_of_a_masked_model_beats_one_of_random_features(tmp_path):
    fast = ("secure_aggregation.mode=arithmetic", "federation.evaluate_every=0")
    start_ = run("digits_masked", tmp_path / "masked", *fast).path
    probe = (
        "model.name=mlp",
        "model.hidden=[128]",
        "federation.rounds=10",
        'model.freeze=["*", "!output*"]',
    )
    began = (f"model.start_from={start_}", 'model.reinitialise=["output*"]')
    learned = run("digits_plain", tmp_path / "a", *fast, *probe, *began).read_metrics()[-1]
    random = run("digits_plain", tmp_path / "b", *fast, *probe).read_metrics()[-1]
    assert learned["test_accuracy"] > random["test_accuracy"] + 0.03

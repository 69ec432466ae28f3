"""Hyper-parameter studies: resumed, pruned, accounted."""

import fcntl
import json
from pathlib import Path

import pytest

pytest.importorskip("optuna")

from fedtrain.cli import main
from fedtrain.config import load_config
from fedtrain.errors import ConfigError
from fedtrain.plan import compute_planned_cost, compute_planned_site_cost
from fedtrain.resolution import resolve
from simulations.sweep import compute_planned_sweep_costs, sweep
from simulations.sweep_picture import draw_sweep
from simulations.sweep_study import load_study

SMALL = """
[partition]
sites = 3
[data]
validation_fraction = 0.2
[model]
name = "logistic"
[federation]
rounds = 1
[secure_aggregation]
mode = "arithmetic"
"""
PRIVATE = """
[training]
sampling = "poisson"
sample_rate = 0.1
local_steps = 2
expected_batch_size = 40
[privacy]
unit = "record"
noise_multiplier = 1.0
metrics = "uncovered"
"""
GRID = """
[sweep]
scenario = "small.toml"
sampler = "grid"
metric = "val_accuracy"
[sweep.space]
"training.learning_rate" = [0.0001, 0.1]
"""


@pytest.fixture
def write(tmp_path):
    def write_study(study=GRID, private=False):
        (tmp_path / "small.toml").write_text(SMALL + (PRIVATE if private else ""))
        (tmp_path / "study.toml").write_text(study)
        return tmp_path / "study.toml"

    return write_study


def test_grid_runs_every_value_and_writes_the_best_scenario(write, tmp_path):
    result = sweep(write(), tmp_path / "out")
    assert sorted(one.values["training.learning_rate"] for one in result.trials) == [0.0001, 0.1]
    assert result.best.values == {"training.learning_rate": 0.1}
    assert load_config(result.scenario).training.learning_rate == 0.1
    draw_sweep(result, tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_metric_that_no_trial_has_ends_a_study_at_its_first(write, tmp_path):
    with pytest.raises(ConfigError, match=r"val_los': these trials have val_accuracy, .*val_loss"):
        sweep(write(GRID.replace("val_accuracy", "val_los")), tmp_path / "out")
    assert len(list((tmp_path / "out" / "trials").iterdir())) == 1


def test_study_that_ships_is_found_by_name():
    study, scenario = load_study(Path("breast_cancer"))
    assert study.count_trials() == 10
    assert scenario.stem == "breast_cancer_prepared"


@pytest.mark.slow
def test_finished_study_runs_no_more_trials(write, tmp_path):
    first = sweep(write(), tmp_path / "out")
    assert sweep(tmp_path / "study.toml", tmp_path / "out").trials == first.trials


def test_folder_of_another_study_is_refused(write, tmp_path):
    path = write()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sweep.json").write_text('{"digest": "other"}')
    with pytest.raises(ConfigError, match="another study's trials"):
        sweep(path, tmp_path / "out")


def test_second_command_is_kept_out_of_a_running_study(write, tmp_path):
    path = write()
    (tmp_path / "out").mkdir()
    with (tmp_path / "out" / "sweep.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another process is running the study"):
            sweep(path, tmp_path / "out")


def test_cost_of_trials_on_private_records_composes(write):
    _, (both,) = compute_planned_sweep_costs(write(private=True))
    one = compute_planned_cost(resolve(load_config(write(private=True).parent / "small.toml")))
    assert one.epsilon < both.epsilon < 2 * one.epsilon
    assert both.unit == "record"


def test_declared_public_data_costs_nothing(write):
    study = GRID.replace("[sweep.space]", "public_data = true\n[sweep.space]")
    assert compute_planned_sweep_costs(write(study, private=True))[1] == ()


def test_suppressed_metrics_are_no_objective(write, tmp_path):
    study = GRID + '[sweep.fixed]\n"privacy.metrics" = "suppressed"\n'
    with pytest.raises(ConfigError, match="no trial would have a validation metric"):
        sweep(write(study, private=True), tmp_path / "out")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"val_accuracy"', '"test_accuracy"', "no validation metric"),
        ("[0.0001, 0.1]", "{ low = 0.1, high = 1.0 }", "needs a step"),
        ("training.learning_rate", "rate", "write section.key"),
        ('"grid"', '"tpe"', "trials is missing"),
        ("sampler", "samper", "did you mean sampler"),
        ("[0.0001, 0.1]", "[]", "is empty; give two values"),
        ("[0.0001, 0.1]", "[[8], [16]]", r"learning_rate' = \[\[8\], \[16\]\]: .* no list"),
    ],
)
def test_wrong_study_is_refused_in_one_line(write, before, after, message):
    with pytest.raises(ConfigError, match=message):
        load_study(write(GRID.replace(before, after)))


def test_unknown_key_of_the_space_is_refused_before_the_first_trial(write, tmp_path):
    study = GRID.replace("learning_rate", "learning_rat")
    with pytest.raises(ConfigError, match=r"sweep.space: .* did you mean training.learning_rate"):
        sweep(write(study), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_values_that_only_go_together_are_not_refused(write):
    space = '"training.optimiser" = ["adam"]\n"training.adam_betas" = [0.9]\n'
    compute_planned_sweep_costs(write(GRID + space))


def test_adaptive_choice_of_what_is_released_is_refused(write, tmp_path, capsys):
    study = GRID.replace('"grid"', '"tpe"\ntrials = 1').replace(
        "training.learning_rate", "privacy.noise_multiplier"
    )
    arguments = ["sweep", str(write(study, private=True)), "--out", str(tmp_path / "out")]
    assert main(arguments) != 0
    assert "choose ahead" in capsys.readouterr().err


@pytest.mark.slow
def test_workers_share_the_trials_of_a_resumed_study(write, tmp_path, capsys):
    study = GRID.replace('"grid"', '"random"\ntrials = 3\npruner = "none"')
    path = write(study.replace("[0.0001, 0.1]", "{ low = 0.01, high = 1.0, log = true }"))
    sweep(write(path.read_text().replace("trials = 3", "trials = 1")), tmp_path / "out")
    write(path.read_text().replace("trials = 1", "trials = 3"))
    assert (
        main(["sweep", str(path), "--out", str(tmp_path / "out"), "--workers", "2", "--json"]) == 0
    )
    tree = json.loads(capsys.readouterr().out)
    assert [one["number"] for one in tree["trials"]] == [0, 1, 2]
    assert len({one["values"]["training.learning_rate"] for one in tree["trials"]}) == 3


@pytest.mark.parametrize("key", ["privacy.unit", "privacy.target_delta"])
def test_what_one_epsilon_is_about_is_the_same_in_all_trials(write, key):
    study = GRID + f'"{key}" = ["record", "person"]\n'
    with pytest.raises(ConfigError, match=f"space.'{key}' would make one epsilon of trials"):
        load_study(write(study, private=True))


@pytest.mark.parametrize(("private", "numbers"), [(True, [0, 1]), (False, [None, None])])
def test_trials_under_privacy_draw_noise_of_their_own(write, tmp_path, private, numbers):
    sweep(write(private=private), tmp_path / "out")
    trials = sorted((tmp_path / "out" / "trials").iterdir())
    assert [load_config(path / "config.toml").run.trial for path in trials] == numbers
    assert "trial =" not in (tmp_path / "out" / "best.toml").read_text()


def test_trials_that_protect_records_and_sites_cost_both(write):
    both = 'unit = "record_and_site"\nsite = {noise_multiplier = 4.0, max_update_norm = 1.0}'
    path = write(private=True)
    scenario = path.parent / "small.toml"
    text = scenario.read_text().replace('unit = "record"', both)
    scenario.write_text(text.replace('mode = "arithmetic"', 'mode = "protocol"'))
    _, costs = compute_planned_sweep_costs(path)
    assert [cost.unit for cost in costs] == ["record", "site"]
    one = compute_planned_site_cost(resolve(load_config(scenario)))
    assert one.epsilon < costs[1].epsilon < 2 * one.epsilon

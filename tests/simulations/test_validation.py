"""Cross-validation: every record tested on once, none trained on and tested on in one run."""

import json

import numpy as np
import pytest

from fedtrain.cli import main
from fedtrain.config import parse_config
from fedtrain.data.shards import Shards
from fedtrain.errors import ConfigError
from fedtrain.plan import compute_planned_cost
from fedtrain.resolution import resolve
from simulations.opening import open_config
from simulations.progress import Silence
from simulations.validation import (
    compute_validation_costs,
    plan_folds,
    plan_sites,
    summarise,
    validate,
)

SMALL = """
[partition]
sites = 4
[data]
validation_fraction = 0.1
[model]
name = "logistic"
[federation]
rounds = 2
[training]
learning_rate = 0.1
[secure_aggregation]
mode = "arithmetic"
"""
PRIVATE = """
sampling = "poisson"
sample_rate = 0.1
local_steps = 2
expected_batch_size = 40
[privacy]
unit = "record"
noise_multiplier = 1.0
metrics = "uncovered"
[secure_aggregation]"""


def build(private=False):
    text = SMALL.replace("[secure_aggregation]", PRIVATE.lstrip()) if private else SMALL
    return resolve(parse_config(text))


@pytest.mark.parametrize("private", [False, True])
def test_every_record_of_a_site_is_tested_on_once(private):
    tested, sizes = [], set()
    for part in plan_folds(build(private), 3):
        opened = open_config(part.config)
        split = Shards.open(opened.config).find_rows(1, opened.preparation)
        assert not set(split.test) & {*split.train, *split.validation}
        tested += split.test.tolist()
        sizes.add(sum(len(rows) for rows in split.get_parts()))
    assert len(tested) == len(set(tested))
    assert sizes == {len(tested)}


def test_folds_of_a_site_have_each_class_in_equal_numbers():
    counts = []
    for part in plan_folds(build(), 3):
        opened = open_config(part.config)
        counts.append(
            np.bincount(Shards.open(opened.config).load(0, opened.preparation).test.labels)
        )
    assert (np.ptp(counts, axis=0) <= 1).all()


def test_left_out_site_has_no_record_in_the_run():
    config = build()
    whole = Shards.open(config)
    (part,) = plan_sites(config, ["site-02"])
    shards = Shards.open(part.config)
    assert shards.site_names == ("site-00", "site-01", "site-03")
    for name in shards.site_names:
        own, same = shards.site_names.index(name), whole.site_names.index(name)
        np.testing.assert_array_equal(
            shards.read_raw(own, "all")[0], whole.read_raw(same, "all")[0]
        )


def test_unknown_site_is_refused():
    with pytest.raises(ConfigError, match=r"no site 'nowhere' to hold out; known here: site-00"):
        plan_sites(build(), ["nowhere"])


def test_record_is_paid_for_in_every_run_but_one():
    config = build(private=True)
    (cost,) = compute_validation_costs(plan_folds(config, 3))
    two = compute_planned_cost(config, 2 * config.federation.rounds)
    assert cost.epsilon == pytest.approx(two.epsilon, rel=1e-3)
    assert cost.unit == "record"


def test_mean_and_deviation_are_those_of_numpy():
    values = [0.5, 0.75, 0.7]
    means, deviations = summarise([{"auc": value, "x": 1.0} for value in values])
    assert means["auc"] == pytest.approx(np.mean(values))
    assert deviations["auc"] == pytest.approx(np.std(values, ddof=1))


def test_held_out_site_is_tested_on_by_a_model_that_never_saw_it(tmp_path):
    config = build()
    validation = validate(plan_sites(config, ["site-01"]), config, tmp_path / "cv", Silence())
    assert validation.tested[0].name == "site-01"
    assert validation.means["accuracy"] > 0.5
    assert validation.deviations == {}
    assert "leave_out" in (tmp_path / "cv" / "001" / "config.toml").read_text()


def test_folder_that_holds_something_is_left_alone(tmp_path):
    config = build()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ConfigError, match="not empty; choose another --out"):
        validate(plan_folds(config, 2), config, tmp_path, Silence())


def test_each_run_is_announced(tmp_path):
    config, said = build(), []
    parts = plan_sites(config, ["site-01"])
    validate(parts, config, tmp_path / "cv", Silence(), announce=said.append)
    assert said == ["run 1 of 1: tested on site-01"]


@pytest.mark.slow
def test_cross_validate_prints_mean_and_deviation(tmp_path, capsys):
    (tmp_path / "small.toml").write_text(SMALL)
    arguments = ["cross-validate", str(tmp_path / "small.toml"), "--out", str(tmp_path / "cv")]
    assert main([*arguments, "--folds", "2", "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert [one["tested_on"] for one in tree["runs"]] == ["fold 1", "fold 2"]
    assert tree["deviations"]["accuracy"] < 0.1

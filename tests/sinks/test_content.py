"""What a sink is given of a run."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrain.errors import RunDirectoryError
from fedtrain.sinks.content import (
    clean_name,
    describe_run,
    flatten_config,
    list_files,
    list_points,
)


def test_points_are_the_finite_figures_of_each_round(finished):
    points = list_points(finished)
    losses = [(point.round, point.value) for point in points if point.key == "train_loss"]
    assert losses == finished.get_series("train_loss")
    assert "round" not in {point.key for point in points}


def test_points_leave_out_what_is_not_finite(finished):
    lines = [{"round": 1, "a": math.inf, "b": math.nan, "c": "no", "d": None, "e": True, "f": 2}]
    assert [point.key for point in list_points(replace(finished, metrics=lines))] == ["f"]


def test_points_after_a_round_keep_their_times(finished):
    every = list_points(finished)
    assert list_points(finished, after=9) == [point for point in every if point.round > 9]
    assert [point.time for point in every] == sorted(point.time for point in every)


def test_what_sites_wrote_of_themselves_changes_nothing(finished):
    other = replace(finished, sites=[{"site": "ward", "test_accuracy": 0.123, "rounds": 99}])
    assert len(finished.sites) == 4
    assert list_points(other) == list_points(finished)
    assert describe_run(other) == describe_run(finished)


def test_files_that_sites_wrote_are_not_sent(finished):
    sent = {file.relative_to(finished.path).as_posix() for file in list_files(finished.path)}
    assert {"config.toml", "model.safetensors", "model.json", "report.html"} <= sent
    assert not {name for name in sent if "sites" in name or "ledger" in name}


def test_config_is_flattened_without_loss():
    tree = {"a": {"b": 1, "c": {"d": [1, 2]}}, "e": "text", "f": 0.5}
    assert flatten_config(tree) == {"a.b": "1", "a.c.d": "[1, 2]", "e": "text", "f": "0.5"}


def test_description_has_digest_fingerprint_and_guarantee(finished):
    told = describe_run(finished)
    assert told["config_digest"] == finished.state["digest"]
    assert len(told["data_fingerprint"]) == 64
    assert "epsilon = 4.00 at delta = 1e-05" in told["privacy"]


def test_damaged_environment_is_named(change_state):
    run = change_state()
    (run.path / "environment.json").write_text("[1")
    with pytest.raises(RunDirectoryError, match=r"environment\.json: damaged"):
        describe_run(run)


@given(st.text())
def test_clean_names_have_no_other_characters(text):
    allowed = set("_-. :/abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
    assert set(clean_name(text)) <= allowed
    assert len(clean_name(text)) == len(text)

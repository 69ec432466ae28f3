"""What a report says is not protected follows from the config."""

import pytest

from fedtrain.config import build_config
from fedtrain.report.limits import COUNTED, FAMILY, IMPORTANCE, START, build_limits

PRIVATE = {
    "privacy": {"unit": "record", "noise_multiplier": 1.0},
    "training": {"sampling": "poisson", "sample_rate": 0.2, "expected_batch_size": 50},
}


def list_unprotected(tree):
    return build_limits(build_config(tree), (), audited=False, lasting=False).not_protected


def test_records_of_the_start_model_are_named_where_there_is_one():
    model = {"start_from": "a.safetensors", "start_digest": "0" * 64}
    assert START in list_unprotected(PRIVATE | {"model": model})
    assert START not in list_unprotected(PRIVATE)


@pytest.mark.parametrize(("importance", "told"), [("file", True), ("equal", False)])
def test_records_of_the_importances_are_not_protected(importance, told):
    continual = {"pull": 0.1, "importance": importance}
    model = {"start_from": "first.safetensors", "start_digest": "0" * 64}
    found = list_unprotected(PRIVATE | {"model": model, "continual": continual})
    assert (IMPORTANCE in found) is told


@pytest.mark.parametrize(
    "tables",
    [
        {"data": {"folds": 3, "fold": 0}},
        {"run": {"trial": 0}},
        {"partition": {"leave_out": ["site-00"], "sites": 3}},
    ],
    ids=["fold", "trial", "site"],
)
def test_runs_on_the_same_records_are_named_where_the_run_is_one_of_several(tables):
    assert FAMILY in list_unprotected(PRIVATE | tables)
    assert FAMILY not in list_unprotected(PRIVATE)


def test_weights_of_classes_may_have_been_counted_from_the_records():
    weighted = PRIVATE["training"] | {"class_weights": [1.0, 2.0]}
    assert COUNTED in list_unprotected(PRIVATE | {"training": weighted})
    assert COUNTED not in list_unprotected(PRIVATE)

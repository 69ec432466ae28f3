"""`fedtrain explain`: inputs that decide rank above inputs that do not."""

import json

import numpy as np
import pytest
import torch

from fedtrain.errors import ConfigError
from fedtrain.use.explanation import explain
from fedtrain.use.new_records import NewRecords, read_labelled_records
from tests.use.conftest import EXAMPLE


def let_one_pixel_decide(model, pixel: int) -> None:
    """Make the classes 0 and 1 of a logistic model follow one pixel."""
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.zero_()
        next(iter(model.module.parameters()))[:2, pixel] = torch.tensor([-5.0, 5.0])


@pytest.fixture
def decided(tmp_path):
    from tests.use.conftest import make_digits

    model = make_digits(tmp_path / "run", name="logistic")
    let_one_pixel_decide(model, 19)
    features = np.random.default_rng(0).random((80, 1, 8, 8)).astype(np.float32)
    labels = (features[:, 0, 2, 3] > 0.5).astype(np.int64)
    return model, NewRecords(features), labels


@pytest.mark.parametrize("method", ["permutation", "gradients"])
def test_only_the_pixel_that_decides_matters(decided, method):
    if method == "gradients":
        pytest.importorskip("captum")
    explanation = explain(*decided, method=method)
    first, second = explanation.rank()[:2]
    assert explanation.names[first] == "2,3"
    assert explanation.importance[first] > 0.1
    assert abs(explanation.importance[second]) < 1e-6


def test_records_are_left_as_they_were(decided):
    model, records, labels = decided
    before = records.features.copy()
    explain(model, records, labels)
    assert np.array_equal(records.features, before)


def test_same_seed_gives_the_same_explanation(heart, table):
    data = read_labelled_records(heart, table)
    first, second = (explain(heart, *data, seed=3).to_json() for _ in range(2))
    assert first == second


def test_ids_have_no_gradients(decided):
    from dataclasses import replace

    model, records, labels = decided
    discrete = replace(model, preparation=replace(model.preparation, is_discrete=True))
    with pytest.raises(ConfigError, match="use permutation"):
        explain(discrete, records, labels, method="gradients")


def test_table_and_picture_are_written(table, tmp_path, call):
    picture = tmp_path / "importance.png"
    code, text, _ = call("explain", EXAMPLE, "--data", table, "--out", picture, "--json")
    assert code == 0
    assert len(json.loads(text)["inputs"]) == 13
    assert picture.read_bytes().startswith(b"\x89PNG")

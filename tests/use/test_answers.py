"""Each task answers in its own terms: numbers in their unit, several labels, a score."""

import numpy as np
import polars as pl
import pytest

from fedtrain.data.encoding import NumericColumn
from fedtrain.data.preparation import Preparation
from fedtrain.errors import DataError
from fedtrain.use.answers import compute_answers
from fedtrain.use.evaluation import evaluate
from fedtrain.use.new_records import read_labelled_records, read_new_records
from fedtrain.use.prediction import predict
from fedtrain.use.serving import build_server
from tests.use.conftest import write_run

COLUMNS = (NumericColumn("age", 0.0, 100.0, 50.0), NumericColumn("dose", 0.0, 10.0, 5.0))
ROWS = {"age": [20, 40, 60], "dose": [1.0, 2.0, None], "level": [100, 250, None], "n": [1, 0, 1]}


def make(path, task, names, **data):
    """Write a run of a task on a table of two columns."""
    bounds = tuple(data["target_bounds"]) if "target_bounds" in data else None
    preparation = Preparation(
        "bounds", (2,), names, columns=COLUMNS, task=task, target_bounds=bounds
    )
    section = {"source": "csv", "path": "x", "task": task, "preparation": "bounds"} | data
    tree = {
        "data": section | {"bounds": {"age": [0, 100], "dose": [0, 10]}},
        "model": {"name": "mlp", "hidden": [4]},
    }
    return write_run(path, tree, preparation)


@pytest.fixture
def regression(tmp_path):
    return make(tmp_path / "run", "regression", ("level",), label="level", target_bounds=[100, 300])


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "clinic.csv"
    pl.DataFrame(ROWS).write_csv(path)
    return path


def test_numbers_are_in_the_target_s_unit(regression, table):
    outputs = regression.compute_outputs(read_new_records(regression, table).features)
    found = predict(regression, table)["prediction_level"].to_numpy()
    assert found == pytest.approx(100 + 200 * outputs[:, 0], rel=1e-6)


def test_rows_without_a_target_are_left_out(regression, table):
    records, targets = read_labelled_records(regression, table)
    assert records.left_out == 1
    assert targets.tolist() == [[0.0], [0.75]]
    assert {"loss", "mae"} <= set(evaluate(regression, table).metrics)


def test_other_column_may_be_the_target(regression, table):
    _, targets = read_labelled_records(regression, table, label="n")
    assert len(targets) == 3


def test_several_labels_are_those_more_probable_than_not(tmp_path, table):
    model = make(tmp_path / "run", "multi_label", ("n", "m"), targets=["n", "m"])
    answers = compute_answers(model, read_new_records(model, table).features)
    for row, text in enumerate(answers["prediction"]):
        likely = [name for name in ("n", "m") if answers[f"probability_{name}"][row] > 0.5]
        assert text == "; ".join(likely)


def test_wrong_number_of_targets_is_refused(tmp_path, table):
    model = make(tmp_path / "run", "multi_label", ("n", "m"), targets=["n", "m"])
    with pytest.raises(DataError, match="rows with 1 targets, the model has 2"):
        read_labelled_records(model, table, label="n")


def test_score_of_an_anomaly_is_the_reconstruction_s_error(tmp_path, table):
    model = make(tmp_path / "run", "anomaly", ("usual", "rare"), classes=["usual", "rare"])
    features = read_new_records(model, table).features
    expected = ((model.compute_outputs(features) - features) ** 2).mean(axis=1)
    assert np.allclose(compute_answers(model, features)["anomaly_score"], expected)


@pytest.mark.filterwarnings("ignore:Using `httpx`")
def test_served_numbers_are_values(regression):
    from starlette.testclient import TestClient

    client = TestClient(build_server(regression), base_url="http://127.0.0.1")
    reply = client.post("/predict", json={"records": [{"age": 20, "dose": 1}]})
    assert list(reply.json()["predictions"][0]) == ["values"]

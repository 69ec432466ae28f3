"""`fedtrain evaluate`: a run's model on a file of one's own."""

import json
from itertools import chain

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import accuracy_score, log_loss

from fedtrain.errors import ConfigError, DataError
from fedtrain.use.evaluation import evaluate
from fedtrain.use.new_records import name_inputs, read_labelled_records, read_new_records
from tests.use.conftest import EXAMPLE, ROWS


def test_metrics_are_those_of_scikit_learn(heart, table):
    records, labels = read_labelled_records(heart, table)
    probabilities = heart.compute_probabilities(records.features)
    found = evaluate(heart, table).metrics
    assert found["accuracy"] == accuracy_score(labels, probabilities.argmax(axis=1))
    assert found["loss"] == pytest.approx(log_loss(labels, probabilities), rel=1e-5)


def test_rows_without_a_label_are_left_out_and_counted(heart, table):
    evaluation = evaluate(heart, table)
    assert (evaluation.records, evaluation.left_out) == (3, 1)


def test_label_expression_of_the_run_decides_the_class(heart, table):
    _, labels = read_labelled_records(heart, table)
    assert labels.tolist() == [0, 1, 0]
    _, labels = read_labelled_records(heart, table, label="num == 0")
    assert labels.tolist() == [1, 0, 1]


def test_columns_may_be_in_any_order(heart, table, tmp_path):
    turned = tmp_path / "turned.parquet"
    pl.DataFrame({name: ROWS[name] for name in reversed(ROWS)}, strict=False).write_parquet(turned)
    expected = read_new_records(heart, table).features
    assert np.array_equal(read_new_records(heart, turned).features, expected)


def test_json_holds_the_run_s_own_figures_beside(table, call):
    code, text, _ = call("evaluate", EXAMPLE, "--data", table, "--json")
    tree = json.loads(text)
    assert code == 0
    assert tree["in_run"]["accuracy"] == pytest.approx(0.8162, abs=1e-4)
    assert set(tree["metrics"]) >= set(tree["in_run"])


def test_arrays_are_evaluated(digits, scans):
    records, labels = read_labelled_records(digits, scans)
    assert labels.tolist() == [i % 10 for i in range(12)]
    assert records.features.max() <= 1
    assert set(digits.compute_metrics(records.features, labels)) >= {"loss", "accuracy"}


def test_inputs_of_a_one_hot_column_belong_together(heart):
    groups = dict(name_inputs(heart.preparation))
    assert len(groups["cp"]) == 5
    assert sorted(chain.from_iterable(groups.values())) == list(
        range(heart.preparation.input_shape[0])
    )


@pytest.mark.parametrize(
    ("label", "text"), [("nmu", "did you mean 'num'"), ("patient", "none of the 2 classes")]
)
def test_wrong_label_column_is_refused(heart, table, label, text):
    with pytest.raises(DataError, match=text):
        read_labelled_records(heart, table, label=label)


def test_label_of_arrays_is_refused(digits, scans):
    with pytest.raises(ConfigError, match="--label num"):
        read_labelled_records(digits, scans, label="num")


def test_table_for_a_model_of_arrays_is_refused(digits, table):
    with pytest.raises(DataError, match=r"give an \.npz file"):
        read_new_records(digits, table)


def test_run_without_a_model_is_one_line(table, call, tmp_path):
    code, _, text = call("evaluate", tmp_path, "--data", table)
    assert code == 3
    assert text.count("\n") == 1

"""`fedtrain predict`: a row for each record, in order."""

import numpy as np
import polars as pl
import pytest

from fedtrain.errors import ConfigError, DataError
from fedtrain.use.new_records import read_new_records
from fedtrain.use.prediction import predict, write_predictions
from tests.use.conftest import EXAMPLE


@pytest.mark.parametrize("name", ["answers.csv", "answers.parquet"])
def test_predictions_come_in_order_with_what_was_kept(heart, table, tmp_path, call, name):
    out = tmp_path / name
    code, text, _ = call("predict", EXAMPLE, "--data", table, "--out", out, "--keep", "patient")
    read = pl.read_csv if out.suffix == ".csv" else pl.read_parquet
    answers = read(out)
    assert (code, text) == (0, f"{out}\n")
    assert answers["patient"].to_list() == ["p1", "p2", "p3", "p4"]
    expected = heart.compute_probabilities(read_new_records(heart, table).features)
    assert np.allclose(answers["probability_disease"].to_numpy(), expected[:, 1])


def test_prediction_is_the_most_probable_class(heart, table):
    answers = predict(heart, table)
    likely = answers["probability_disease"] > answers["probability_healthy"]
    assert (answers["prediction"] == "disease").to_list() == likely.to_list()


def test_arrays_without_labels_are_predicted(digits, tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, x=np.zeros((3, 1, 8, 8)))
    assert predict(digits, path).shape == (3, 11)


def test_column_to_keep_that_is_not_there_is_refused(heart, table):
    with pytest.raises(DataError, match="--keep name"):
        predict(heart, table, keep=("name",))


def test_other_suffix_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"\.csv or \.parquet"):
        write_predictions(pl.DataFrame({"a": [1]}), tmp_path / "answers.xlsx")


def test_records_of_another_shape_are_refused(digits, tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, x=np.zeros((3, 64)))
    with pytest.raises(DataError, match=r"shape \(64,\)"):
        predict(digits, path)


def test_column_that_is_not_there_is_said_with_what_is_like_it(heart, table, caplog):
    frame = pl.read_csv(table)
    name = heart.preparation.columns[0].name
    frame.rename({name: f"{name}s"}).write_csv(table)
    predict(heart, table)
    assert f"column={name!r} similar='{name}s'" in caplog.text


def test_table_without_any_column_of_the_model_is_refused(heart, tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("height,width\n1,2\n")
    with pytest.raises(DataError, match=r"other\.csv has no column of the model; it takes"):
        predict(heart, path)


def test_file_that_is_not_there_is_said_to_be_none(heart, tmp_path):
    with pytest.raises(DataError, match=r"none\.parquet: cannot be read \(no such file\)"):
        predict(heart, tmp_path / "none.parquet")


@pytest.mark.parametrize("command", ["predict", "explain", "export"])
def test_folder_that_is_not_there_is_named(table, tmp_path, call, command):
    name = {"predict": "p.csv", "explain": "p.png", "export": "p.pt"}[command]
    source = ("--format", "torchscript") if command == "export" else ("--data", table)
    code, _, text = call(command, EXAMPLE, *source, "--out", tmp_path / "none" / name)
    assert (code, text.count("\n")) == (2, 1)
    assert f"there is no folder {tmp_path / 'none'}; make it first" in text

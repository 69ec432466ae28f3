"""A first scenario for a table of one's own."""

import numpy as np
import polars as pl
import pytest

from fedtrain.cli import main
from fedtrain.config import load_config
from fedtrain.data.draft import draft_scenario
from fedtrain.errors import ConfigError, DataError

ROWS = 120


@pytest.fixture
def frame():
    generator = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "patient": [f"p{i}" for i in range(ROWS)],
            "number": generator.permutation(ROWS),
            "age": generator.integers(23, 88, ROWS),
            "dose": generator.uniform(0.07, 0.31, ROWS).round(3),
            "sex": [("f", "m", "")[i % 3] for i in range(ROWS)],
            "site": [("anna", "berta", "clara")[i % 3] for i in range(ROWS)],
            "ill": [("no", "yes")[i // 3 % 2] for i in range(ROWS)],
            "score": generator.normal(50, 10, ROWS).round(2),
        }
    )


@pytest.fixture
def table(tmp_path, frame):
    frame.write_csv(tmp_path / "t.csv")
    return tmp_path / "t.csv"


def test_columns_are_taken_for_what_they_are(table):
    draft = draft_scenario(table, label="ill", site_column="site")
    data = draft.tree["data"]
    assert data["columns"] == ["age", "dose", "sex", "score"]
    assert (data["categories"], data["classes"]) == ({"sex": ["f", "m"]}, ["no", "yes"])
    assert (data["bounds"]["age"], data["bounds"]["dose"]) == ([20, 90], [0.0, 0.4])
    assert set(draft.left_out) == {"patient", "number"}


def test_label_of_many_numbers_is_a_regression(table):
    data = draft_scenario(table, label="score").tree["data"]
    low, high = data["target_bounds"]
    assert data["task"] == "regression"
    assert low < 40 < 60 < high
    assert "classes" not in data


def test_label_may_be_a_comparison(table):
    data = draft_scenario(table, label="score > 50").tree["data"]
    assert data["label"] == "score > 50"
    assert "score" not in data["columns"]
    assert not {"classes", "task"} & set(data)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_folder_has_a_site_a_file(tmp_path, frame, suffix):
    for (name,), part in frame.drop("patient").group_by("site"):
        getattr(part.drop("site"), f"write_{suffix}")(tmp_path / f"{name}.{suffix}")
    tree = draft_scenario(tmp_path, label="ill").tree
    assert tree["partition"] == {"scheme": "natural"}
    assert "site" not in tree["data"]["bounds"] | tree["data"]["categories"]
    assert tree["data"]["source"] == suffix


def test_drafted_scenario_trains_as_it_is(table, monkeypatch, capsys):
    monkeypatch.chdir(table.parent)
    options = ["--data", "t.csv", "--label", "ill", "--site-column", "site"]
    assert main(["init", "study", *options]) == 0
    said = capsys.readouterr().err
    assert "tell of its records" in said
    assert "left out: patient (120 texts: a name or a date?)" in said
    assert "tell of its records" in (table.parent / "study.toml").read_text()[:400]
    assert load_config(table.parent / "study.toml").secure_aggregation.mode == "protocol"
    assert main(["simulate", "study.toml", "--quiet", "--set", "federation.rounds=1"]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "t.csv"], "--label is missing"),
        (["--data", "t.csv", "--label", "il"], "did you mean 'ill'?"),
        (["--data", "u.csv", "--label", "ill"], "no such file"),
        (["--label", "ill"], "--label is read with --data"),
    ],
)
def test_what_cannot_be_drafted_is_one_line(table, monkeypatch, capsys, options, message):
    monkeypatch.chdir(table.parent)
    assert main(["init", "study", *options]) != 0
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (table.parent / "study.toml").exists()


def test_table_without_anything_to_learn_from_is_refused(tmp_path):
    pl.DataFrame({"id": [f"p{i}" for i in range(40)], "y": [0, 1] * 20}).write_csv(
        tmp_path / "t.csv"
    )
    with pytest.raises(ConfigError, match="to learn from"):
        draft_scenario(tmp_path / "t.csv", label="y")
    with pytest.raises(DataError, match=r"\.csv or \.parquet"):
        draft_scenario(tmp_path / "..", label="y")

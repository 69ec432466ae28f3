from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fedtrain.config import Config, build_config
from fedtrain.data.columns import Category, Numeric
from fedtrain.data.records import Records
from fedtrain.data.sources import load_records
from fedtrain.errors import ConfigError, DataError

PEOPLE = "age,sex,ill\n30, f,no\n?,m,yes\n50,,no\n0,f,?\n"


def make_config(path: Path, *, scheme: str = "natural", **data: Any) -> Config:
    partition = {"scheme": scheme} | ({} if scheme == "natural" else {"sites": 2})
    return build_config(
        {
            "data": {"source": "csv", "path": path, **data},
            "partition": partition,
            "secure_aggregation": {"mode": "off"},
        }
    )


def load(path: Path, **data: Any) -> Records:
    return load_records(make_config(path, **data))


@pytest.fixture
def people(tmp_path):
    path = tmp_path / "people.csv"
    path.write_text(PEOPLE)
    return path


def write_sites(folder: Path, **sites: str) -> Path:
    for name, text in sites.items():
        (folder / f"{name}.csv").write_text(text)
    return folder


def test_csv_detects_numbers_categories_and_missing_values(people):
    table = load(people, label="ill").features
    assert isinstance(table.columns["age"], Numeric)
    assert table.columns["age"].values.tolist()[::2] == [30, 50]
    assert table.columns["sex"].names == ("f", "m")
    assert table.columns["sex"].codes.tolist() == [0, 1, -1]


def test_rows_without_a_label_are_left_out(people):
    records = load(people, label="ill")
    assert len(records) == len(records.features) == 3
    assert [records.labels.names[code] for code in records.labels.codes] == ["no", "yes", "no"]


def test_label_expression_gives_false_and_true(people):
    records = load(people, label="age >= 50")
    assert records.labels.names == records.public.label_names == ("false", "true")
    assert records.labels.codes.tolist() == [0, 1, 0]
    assert list(records.features.columns) == ["sex", "ill"]


def test_label_expression_takes_its_names_from_classes(people):
    assert load(people, label="age >= 50", classes=("young", "old")).labels.names[1] == "old"
    with pytest.raises(ConfigError, match=r"data\.classes has 3 names"):
        load(people, label="age >= 50", classes=("a", "b", "c"))


def test_zero_is_missing_where_the_config_says_so(people):
    values = (
        load(people, label="sex == 'f'", zero_is_missing=("age",)).features.columns["age"].values
    )
    assert pl.Series(values).is_nan().to_list() == [False, True, True]


def test_number_codes_are_one_category_however_written(tmp_path):
    folder = write_sites(tmp_path, a="cp,y\n1.0,0\n2.0,1\n", b="cp,y\n2,0\n01,1\n")
    column = load(folder, label="y", categorical=("cp",)).features.columns["cp"]
    assert column == Category(pytest.approx([0, 1, 1, 0]), ("1", "2"))


def test_folder_is_one_site_a_file_and_lacking_columns_are_missing(tmp_path):
    folder = write_sites(tmp_path, b="age,y\n1,0\n", a="weight,y\n2,1\n3,0\n")
    records = load(folder, label="y")
    assert records.sites.names == ("a", "b")
    assert records.public.columns == ("weight", "age")
    age = records.features.columns["age"].values
    assert np.isnan(age).tolist() == [
        True,
        True,
        False,
    ]


def test_site_column_names_the_sites_and_is_no_feature(people):
    people.write_text(PEOPLE.replace("50,,", "50,m,"))
    records = load(people, label="ill", site_column="sex")
    assert records.sites.names == ("f", "m")
    assert records.sites.codes.tolist() == [0, 1, 1]
    assert list(records.features.columns) == ["age"]


def test_parquet_reads_its_types(tmp_path):
    frame = pl.DataFrame(
        {"a": [1, None], "b": [True, False], "c": ["u", "NA"], "s": ["x", "y"], "y": [0, 1]}
    )
    frame.write_parquet(tmp_path / "d.parquet")
    records = load_records(
        make_config(tmp_path / "d.parquet", label="y", site_column="s", source="parquet")
    )
    assert records.sites.names == ("x", "y")
    assert list(records.features.columns) == ["a", "b", "c"]
    assert records.features.columns["b"].values.tolist() == [1, 0]
    assert records.features.columns["c"].codes.tolist() == [0, -1]


def test_parquet_with_dates_is_refused(tmp_path):
    frame = pl.DataFrame({"d": ["2020-01-01"], "y": [0]}).with_columns(pl.col("d").str.to_date())
    frame.write_parquet(tmp_path / "d.parquet")
    with pytest.raises(DataError, match="column 'd' has type Date; convert it"):
        load_records(make_config(tmp_path / "d.parquet", label="y", source="parquet"))


def test_sites_that_disagree_on_a_kind_are_refused_unless_pooled(tmp_path):
    folder = write_sites(tmp_path, a="v,y\n1,0\n", b="v,y\nhigh,0\n")
    with pytest.raises(DataError, match="'v' is numeric at site 'a' and text at site 'b'"):
        load(folder, label="y")
    assert load(folder, label="y", scheme="iid").features.columns["v"].names == ("1", "high")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"d\.csv is empty"),
        ("a,y\n", "has a header and no rows"),
        ("a,y\n1,0\n2\n", "line 3 has 1 fields, its header has 2"),
        ("a,y\n1,0\n2,3,4\n", "line 3 has 3 fields, its header has 2"),
        ("a,z\n1,0\n", "label column 'y' does not exist; did you mean|known here: a, z"),
        ("a,y\n1,?\n", "'y' has no value in any row"),
        ("y\n1\n", "no column but the label"),
        ("a,a,y\n1,2,0\n", "has two columns 'a'"),
        ("a,y\n1,0.5\n", r"'y' holds fractions.*data\.label = 'y > 0'"),
    ],
)
def test_csv_that_cannot_be_used_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "d.csv").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path / "d.csv", label="y")
    assert "\n" not in str(caught.value)


def test_csv_that_is_no_text_is_refused_in_one_line(tmp_path):
    (tmp_path / "d.csv").write_bytes(b"a,y\n\xff\xfe\x00,1\n")
    with pytest.raises(DataError, match="not readable as csv") as caught:
        load(tmp_path / "d.csv", label="y")
    assert "\n" not in str(caught.value)


def test_parquet_that_is_none_is_refused(tmp_path):
    (tmp_path / "d.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(DataError, match="not readable as parquet"):
        load_records(make_config(tmp_path / "d.parquet", label="y", source="parquet"))


def test_folder_without_files_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"there is no \.csv file"):
        load(tmp_path, label="y")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "data.label is missing"),
        ({"label": "il"}, "label column 'il' does not exist; did you mean 'ill'"),
        ({"label": "ill", "site_column": "sx"}, "data.site_column 'sx' does not exist"),
        ({"label": "ill", "site_column": "sex"}, "site column 'sex' is empty in some rows"),
        ({"label": "ill", "columns": ("age", "ag")}, "data.columns names no column 'ag'; did you"),
        ({"label": "ill", "columns": ("ill",)}, "holds the label column 'ill'"),
        ({"label": "ill", "categorical": ("sexe",)}, "names 'sexe'.*did you mean 'sex'"),
        ({"label": "sex > 0"}, "'sex' holds text that is no number"),
        ({"label": "ill", "bounds": {"age": (0, 9), "sex": (0, 1)}}, "'sex' holds text"),
    ],
)
def test_keys_that_do_not_fit_the_table_are_refused(people, data, message):
    with pytest.raises((ConfigError, DataError), match=message):
        load(people, **data)


VISITS = "patient,age,y\np7,30,0\n p1,31,1\np7,32,0\np2,33,?\n"


@pytest.fixture
def visits(tmp_path):
    path = tmp_path / "visits.csv"
    path.write_text(VISITS)
    return path


def test_person_column_numbers_persons_and_is_no_feature(visits):
    records = load(visits, label="y", person_column="patient")
    assert records.persons.tolist() == [0, 1, 0]
    assert records.persons.dtype == np.int64
    assert list(records.features.columns) == ["age"]
    assert records.public.columns == ("age",)


def test_person_without_a_name_is_refused_unless_the_row_has_no_label(visits):
    visits.write_text(VISITS.replace("p2,", ","))
    assert load(visits, label="y", person_column="patient").persons.tolist() == [0, 1, 0]
    visits.write_text(VISITS.replace(" p1,", "?,"))
    with pytest.raises(DataError, match=r"person column 'patient' is empty in some rows.*fill it"):
        load(visits, label="y", person_column="patient")


def test_person_is_one_however_a_number_is_written(tmp_path):
    folder = write_sites(tmp_path, a="id,v,y\n7,1,0\n8,1,0\n", b="id,v,y\n07,1,0\n7.0,1,0\n")
    assert load(folder, label="y", person_column="id", scheme="iid").persons.tolist() == [
        0,
        1,
        0,
        0,
    ]


def test_file_without_the_person_column_is_refused(tmp_path):
    folder = write_sites(tmp_path, a="id,v,y\n7,1,0\n", b="v,y\n1,0\n")
    with pytest.raises(DataError, match="person column 'id' is empty in some rows"):
        load(folder, label="y", person_column="id")


@pytest.mark.parametrize("ids", [[3, 1, 3], ["c", "a", "c"], [2**60, 2**60 + 1, 2**60]])
def test_parquet_person_column_has_any_type_of_name(tmp_path, ids):
    pl.DataFrame({"id": ids, "v": [1, 2, 3], "y": [0, 1, 0]}).write_parquet(tmp_path / "d.parquet")
    records = load(tmp_path / "d.parquet", label="y", person_column="id", source="parquet")
    assert records.persons.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"person_column": "patent"}, "data.person_column 'patent' does not exist; did you mean"),
        ({"person_column": "y"}, r"data\.person_column = 'y' is data\.label too; name another"),
        (
            {"person_column": "patient", "site_column": "patient"},
            r"is data\.site_column too; name another",
        ),
        (
            {"person_column": "patient", "columns": ("age", "patient")},
            "data.columns holds the person column 'patient'; remove it",
        ),
        (
            {"person_column": "patient", "categorical": ("patient",)},
            "data.categorical names 'patient', which is no feature column",
        ),
    ],
)
def test_person_column_that_does_not_fit_the_table_is_refused(visits, data, message):
    with pytest.raises((ConfigError, DataError), match=message):
        load(visits, label="y", **data)

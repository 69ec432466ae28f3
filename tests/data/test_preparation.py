import json
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from fedtrain.config import Config, build_config
from fedtrain.data.columns import Category, Numeric, Table
from fedtrain.data.preparation import Preparation, fit_preparation
from fedtrain.data.public import PublicConstants, apply_config
from fedtrain.data.requirements import needs_statistics, resolve_preparation_kind
from fedtrain.data.statistics import compute_statistics
from fedtrain.errors import ConfigError, DataError

RECORD = {"unit": "record", "noise_multiplier": 1.0}
POISSON = {"sampling": "poisson", "sample_rate": 0.1, "expected_batch_size": 8.0}
TABLE = PublicConstants(columns=("age", "sex"))
LABELS = Category(np.array([0, 1, 1, 0], dtype=np.int32), ("no", "yes"))


def make_config(*, private: bool = False, **data: Any) -> Config:
    tree: dict[str, Any] = {"data": {"source": "csv", **data}}
    return build_config(
        {"secure_aggregation": {"mode": "off"}}
        | tree
        | ({"privacy": RECORD, "training": POISSON} if private else {})
    )


def make_table() -> Table:
    age = Numeric(np.array([20.0, 40.0, np.nan, 60.0]))
    return Table({"age": age, "sex": Category(np.array([0, 1, -1, 1], np.int32), ("f", "m"))}, 4)


def fit(config: Config, table: Table, public: PublicConstants = TABLE) -> Preparation:
    public = apply_config(public, config)
    return fit_preparation([compute_statistics(table, LABELS)], config, public)


def test_standardise_fills_missing_numbers_with_the_mean_and_marks_missing_categories():
    prepared = fit(make_config(), make_table()).apply_features(make_table())
    scale = np.std([20, 40, 60])
    assert prepared[:, 0] == pytest.approx([-20 / scale, 0, 0, 20 / scale])
    assert prepared[:, 1:].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0]]
    assert prepared.dtype == np.float32


def test_bounds_scale_clip_and_fill_with_the_midpoint():
    config = make_config(private=True, bounds={"age": (30, 50)}, categories={"sex": ("f", "m")})
    public = PublicConstants(columns=("age", "sex"), label_names=("no", "yes"))
    preparation = fit_preparation([], config, public)
    prepared = preparation.apply_features(make_table())
    assert prepared[:, 0].tolist() == [0, 0.5, 0.5, 1]
    assert preparation.input_shape == (4,)


def test_record_privacy_never_looks_at_statistics():
    def refuse():
        raise AssertionError("statistics were asked for")
        yield

    config = make_config(private=True, bounds={"age": (0, 120)}, categories={"sex": ("f", "m")})
    public = PublicConstants(columns=("age", "sex"), label_names=("no", "yes"))
    assert not needs_statistics(config, public)
    assert fit_preparation(refuse(), config, public).label_names == ("no", "yes")


@pytest.mark.parametrize(
    ("data", "cure"),
    [
        ({"classes": ("0", "1")}, r"'age' has no public bounds.*data\.bounds\.age = \[0, 120\]"),
        (
            {"classes": ("0", "1"), "bounds": {"age": (0, 9)}, "categorical": ("sex",)},
            r"'sex' has no public.*data\.categories\.sex",
        ),
        ({"bounds": {"age": (0, 9)}}, r"data\.classes is missing"),
    ],
)
def test_record_privacy_refuses_what_is_not_public(data, cure):
    with pytest.raises(ConfigError, match=cure):
        fit_preparation(
            [], config := make_config(private=True, **data), apply_config(TABLE, config)
        )


def test_record_privacy_asks_arrays_for_bounds():
    config = make_config(private=True, classes=("0", "1"))
    public = apply_config(PublicConstants(input_shape=(3,)), config)
    with pytest.raises(ConfigError, match=r"data\.bounds\.x = \[0, 255\]"):
        fit_preparation([], config, public)


def test_names_of_no_column_are_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"data\.bounds names 'agee'.*did you mean 'age'"):
        fit(make_config(bounds={"agee": (0, 1)}), make_table())


def test_bounds_that_nothing_reads_are_refused():
    with pytest.raises(ConfigError, match=r"no effect while data\.preparation = 'standardise'"):
        fit(make_config(preparation="standardise", bounds={"age": (0, 1)}), make_table())


def test_none_keeps_numbers_and_refuses_missing_ones():
    preparation = fit(make_config(preparation="none"), make_table())
    full = Table(
        {"age": Numeric(np.array([7.0])), "sex": Category(np.zeros(1, np.int32), ("f",))}, 1
    )
    assert preparation.apply_features(full).tolist() == [[7, 1, 0, 0]]
    with pytest.raises(DataError, match="'age' has missing values"):
        preparation.apply_features(make_table())


@pytest.mark.parametrize(
    ("public", "data", "private", "expected"),
    [
        (TABLE, {}, False, "standardise"),
        (TABLE, {}, True, "bounds"),
        (TABLE, {"bounds": {"age": (0, 1)}}, False, "bounds"),
        (TABLE, {"preparation": "none"}, False, "none"),
        (PublicConstants(value_range=(0.0, 255.0)), {}, False, "bounds"),
        (PublicConstants(is_discrete=True), {}, True, "none"),
    ],
)
def test_default_kind_follows_the_rule(public, data, private, expected):
    assert resolve_preparation_kind(make_config(private=private, **data), public) == expected


def test_preparation_survives_json_and_prepares_a_raw_frame_alike():
    preparation = fit(make_config(), make_table())
    restored = Preparation.from_json(json.loads(json.dumps(preparation.to_json())))
    frame = pl.DataFrame(
        {"sex": ["f", "m", "?", " m"], "id": [1, 2, 3, 4], "age": [20, 40, None, 60]}
    )
    assert restored == preparation
    assert np.array_equal(restored.apply_features(frame), preparation.apply_features(make_table()))


def test_frame_without_a_column_counts_it_as_missing():
    preparation = fit(make_config(), make_table())
    assert preparation.apply_features(pl.DataFrame({"age": ["40"]})).tolist() == [[0, 0, 0, 1]]
    with pytest.raises(DataError, match="none of the model's columns"):
        preparation.apply_features(pl.DataFrame({"other": ["40"]}))


def test_columns_of_other_sites_alone_are_prepared_too():
    statistics = [compute_statistics(make_table(), LABELS)]
    preparation = fit_preparation(statistics, make_config(), PublicConstants(columns=("sex",)))
    assert [column.name for column in preparation.columns] == ["sex", "age"]


@pytest.mark.parametrize(
    "public",
    [TABLE, PublicConstants((1, 8, 8), (0.0, 16.0), ("0", "1")), PublicConstants(is_discrete=True)],
)
def test_public_constants_survive_json(public):
    assert PublicConstants.from_json(json.loads(json.dumps(public.to_json()))) == public


def test_unknown_category_is_all_zero():
    preparation = fit(make_config(), make_table())
    frame = pl.DataFrame({"age": ["40"], "sex": ["x"]})
    assert preparation.apply_features(frame).tolist() == [[0, 0, 0, 0]]


@given(
    values=npst.arrays(np.float32, (20, 3), elements=st.floats(-1e3, 1e3, width=16)),
    cut=st.integers(1, 19),
)
def test_federated_standardisation_equals_the_pooled_one(values, cut):
    labels = Category(np.zeros(20, np.int32), ("0",))
    parts = [
        (values[:cut], labels.take(np.arange(cut))),
        (values[cut:], labels.take(np.arange(cut, 20))),
    ]
    config, public = make_config(), PublicConstants(input_shape=(3,))
    preparation = fit_preparation((compute_statistics(*part) for part in parts), config, public)
    assert preparation.center == pytest.approx(values.astype(float).mean(axis=0), abs=1e-6)
    deviation = values.astype(float).std(axis=0)
    expected = np.where(deviation <= 1e-6 * np.abs(preparation.center), 1.0, deviation)
    assert preparation.scale == pytest.approx(np.where(deviation == 0, 1.0, expected), rel=1e-3)


def test_wrong_shape_and_unknown_label_are_refused():
    config = make_config(classes=("no", "yes"))
    public = apply_config(PublicConstants(input_shape=(2,), value_range=(0, 1)), config)
    preparation = fit_preparation([], config, public)
    with pytest.raises(DataError, match=r"shape \(3,\), the model takes \(2,\)"):
        preparation.apply_features(np.zeros((1, 3)))
    with pytest.raises(DataError, match="label 'maybe' is none of the 2 classes"):
        preparation.apply_labels(Category(np.array([0], np.int32), ("maybe",)))


@pytest.mark.parametrize(
    ("public", "bounds", "keys"),
    [
        (PublicConstants(columns=("age",)), {"age": (0, 9)}, r"hides; set data\.classes, or"),
        (TABLE, {}, r"data\.categories of the columns \(age, sex\) and data\.classes, or"),
        (
            PublicConstants(input_shape=(2,), value_range=(0, 1)),
            {},
            r"hides; set data\.classes, or",
        ),
    ],
)
def test_secure_aggregation_names_the_keys_that_it_lacks(public, bounds, keys):
    kind = "bounds" if bounds else None
    config = make_config(bounds=bounds, preparation=kind)
    secure = config.secure_aggregation.model_copy(update={"mode": "protocol"})
    with pytest.raises(ConfigError, match=keys):
        fit_preparation([], config.model_copy(update={"secure_aggregation": secure}), public)

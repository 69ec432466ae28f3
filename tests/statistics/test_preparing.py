"""Preparation from the statistics of a secure sum."""

import numpy as np
import pytest

from fedtrain.config import parse_config
from fedtrain.data.columns import Category, Numeric, Table
from fedtrain.data.preparation import Preparation
from fedtrain.data.public import PublicConstants
from fedtrain.data.records import Records
from fedtrain.data.shards import Shards
from fedtrain.errors import ConfigError
from fedtrain.statistics.preparing import build_preparation_plan, fit_in_clear

TEXT = """
[data]
source = "csv"
preparation = "{kind}"
{more}
validation_fraction = 0.0
test_fraction = 0.0
bounds = {{a = [-100, 100]}}
categories = {{c = ["x", "y"]}}
[partition]
scheme = "iid"
sites = 4
"""
PUBLIC = PublicConstants(columns=("a", "c"), label_names=("0", "1"))
CLIP = "clip_outliers = [0.1, 0.9]"


def open_shards(kind, more=""):
    generator = np.random.default_rng(3)
    values = np.append(generator.normal(20, 5, 398), [90.0, np.nan])
    codes = generator.integers(0, 2, 400).astype(np.int32)
    table = Table({"a": Numeric(values), "c": Category(codes, ("x", "y"))}, 400)
    records = Records(table, Category(codes, ("0", "1")), PUBLIC)
    config = parse_config(TEXT.format(kind=kind, more=more))
    return values[:-1], Shards.from_records(records, config), config


def test_standardised_column_has_the_mean_and_deviation_of_all_sites():
    values, shards, config = open_shards("standardise")
    column, _ = fit_in_clear(shards, config).columns
    assert column.center == pytest.approx(values.mean(), rel=1e-4)
    assert column.scale == pytest.approx(values.std(), rel=1e-3)
    assert column.fill == column.center


def test_outliers_are_clipped_to_quantiles_of_all_sites():
    values, shards, config = open_shards("standardise", CLIP)
    column, _ = fit_in_clear(shards, config).columns
    assert column.clip == pytest.approx(np.quantile(values, [0.1, 0.9]), abs=200 / 256)


def test_bounds_become_the_quantiles_where_outliers_are_clipped():
    values, shards, config = open_shards("bounds", CLIP)
    preparation = fit_in_clear(shards, config)
    low, high = np.quantile(values, [0.1, 0.9])
    assert preparation.columns[0].center == pytest.approx(low, abs=200 / 256)
    train = shards.load(0, preparation).train.features[:, 0]
    assert (train.min(), train.max()) == (0.0, 1.0)
    assert np.isclose(preparation.columns[0].scale, high - low, atol=400 / 256)


def test_clip_survives_the_saved_preparation():
    _, shards, config = open_shards("standardise", CLIP)
    preparation = fit_in_clear(shards, config)
    assert Preparation.from_json(preparation.to_json()) == preparation


def test_bounds_alone_need_no_sum():
    _, shards, config = open_shards("bounds")
    assert build_preparation_plan(config, PUBLIC) is None
    assert "clip" not in str(fit_in_clear(shards, config).to_json())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('[secure_aggregation]\nmode = "off"', "reads quantiles off a secure sum"),
        (
            (
                '[training]\nsampling = "poisson"\nsample_rate = 0.1\nlocal_steps = 1\n'
                'expected_batch_size = 5\n[privacy]\nunit = "record"\nnoise_multiplier = 1.0'
            ),
            "would release quantiles unprotected",
        ),
    ],
)
def test_clipping_without_a_secure_or_allowed_sum_is_refused(more, message):
    _, shards, _ = open_shards("bounds")
    config = parse_config(TEXT.format(kind="bounds", more=CLIP) + more)
    with pytest.raises(ConfigError, match=message):
        Shards.from_records(shards._records, config)

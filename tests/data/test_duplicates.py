"""Records that a site has twice."""

import numpy as np
import pytest

from fedtrain.config import parse_config
from fedtrain.data.columns import Category, Numeric, Table
from fedtrain.data.public import PublicConstants
from fedtrain.data.records import Records
from fedtrain.data.shards import Shards

CONFIG = """
[data]
source = "csv"
drop_duplicates = true
validation_fraction = 0.0
test_fraction = 0.0
bounds = {a = [0, 9]}
[partition]
scheme = "natural"
"""


def open_table(values, labels, sites):
    columns = {"a": Numeric(np.array(values, float))}
    records = Records(
        Table(columns, len(values)),
        Category(np.array(labels, np.int32), ("0", "1")),
        PublicConstants(columns=("a",), label_names=("0", "1")),
        sites=Category(np.array(sites, np.int32), ("north", "south")),
    )
    return Shards.from_records(records, parse_config(CONFIG))


def test_equal_records_of_a_site_are_kept_once():
    nan = np.nan
    shards = open_table([1, 1, 1, nan, nan, 0.0, -0.0], [0, 0, 1, 0, 0, 1, 1], [0] * 6 + [1])
    features, labels = shards.read_raw(0, "all")
    np.testing.assert_array_equal(features.columns["a"].values, [1, 1, nan, 0])
    assert labels.codes.tolist() == [0, 1, 0, 1]


def test_equal_records_of_two_sites_are_both_kept():
    shards = open_table([1, 1], [0, 0], [0, 1])
    assert [len(shards.read_raw(site, "all")[1]) for site in (0, 1)] == [1, 1]


@pytest.mark.parametrize("shape", [(3,), (1, 2, 2)])
def test_arrays_are_compared_whole(shape):
    features = np.zeros((4, *shape), np.uint8)
    features[2, ..., -1] = 7
    records = Records(
        features,
        Category(np.zeros(4, np.int32), ("0", "1")),
        PublicConstants(input_shape=shape, value_range=(0, 9), label_names=("0", "1")),
    )
    text = (
        '[data]\nsource = "npz"\ndrop_duplicates = true\n[partition]\nsites = 1\n'
        '[secure_aggregation]\nmode = "off"'
    )
    shards = Shards.from_records(records, parse_config(text))
    assert len(shards.read_raw(0, "all")[1]) == 2

"""Sites whose data is not of one form are named before a run."""

import logging

import pytest

from fedtrain.data.public import PublicConstants
from fedtrain.data.schema import verify_schemas
from fedtrain.data.schema_faults import DifferingSchemaError
from fedtrain.data.statistics import Moments, Statistics

IMAGES = PublicConstants(input_shape=(1, 28, 28), value_range=(0, 255), label_names=("0", "1"))


def describe(number):
    numeric = {"age": Moments(1, (40.0,), (1600.0,))} if number else {}
    categories = {} if number else {"age": {"old": 1}}
    return Statistics(1, None, numeric, categories, {"age": 0}, {"0": 1})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("input_shape", (1, 32, 32), r"site 'b' has records of shape \[1, 32, 32\], 2 of 3"),
        ("label_names", ("1", "0"), r"site 'b' has the classes \['1', '0'\]"),
    ],
)
def test_site_of_another_form_is_named(key, value, message):
    other = PublicConstants(**(IMAGES.__dict__ | {key: value}))
    with pytest.raises(DifferingSchemaError, match=message):
        verify_schemas({"a": IMAGES, "b": other, "c": IMAGES}, {})


def test_column_of_another_kind_is_named_with_its_site():
    sums = {"a": describe(True), "b": describe(False), "c": describe(True)}
    with pytest.raises(DifferingSchemaError, match="site 'b': column 'age' holds text"):
        verify_schemas({}, sums)


def test_column_that_a_site_lacks_is_logged(caplog):
    sites = {
        name: PublicConstants(columns=columns)
        for name, columns in (("a", ("age", "ca")), ("b", ("age",)))
    }
    with caplog.at_level(logging.WARNING, logger="fedtrain.data"):
        verify_schemas(sites, {})
    assert caplog.messages == ["schema_differs site=b lacks=ca"]

"""Figures are rounded against whoever reads them as small."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrain.report.figures import format_odds, format_percent, join_words, round_near, round_up


@given(st.floats(1e-12, 1e12))
def test_rounded_up_is_not_below_and_little_above(value):
    rounded = round_up(value)
    assert value * (1 - 1e-8) <= rounded <= value * (1 + 1.01e-5)
    assert round_up(rounded) == rounded


@given(st.floats(1e-12, 1e12))
def test_rounding_is_the_same_on_machines_that_differ_in_the_last_digit(value):
    once = round_near(value)
    assert round_up(once * (1 + 4e-16)) == round_up(once) == once


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.074, "7.4 %"),
        (0.07401, "7.5 %"),
        (0.0004, "<0.1 %"),
        (0.99999, "99.9990 %"),
    ],
)
def test_percent_is_rounded_up_and_never_to_all(value, text):
    assert format_percent(value) == text


@given(st.floats(0, 1))
def test_percent_does_not_read_smaller_than_it_is(share):
    text = format_percent(share).removeprefix("<").removesuffix(" %")
    assert float(text) >= 100 * share - 1e-3


def test_small_things():
    assert math.isinf(round_up(math.inf))
    assert format_odds(1e-5) == "1 in 100,000"
    assert join_words(["a"]) == "a"
    assert join_words(["a", "b", "c"]) == "a, b and c"

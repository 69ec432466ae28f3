import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrain.data.labels import LabelExpression, compute_label, parse_expression
from fedtrain.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("num > 0", LabelExpression("num", ">", 0.0)),
        ("num>=1.5e1", LabelExpression("num", ">=", 15.0)),
        ("blood pressure != -3", LabelExpression("blood pressure", "!=", -3.0)),
        ("state == 'ill'", LabelExpression("state", "==", "ill")),
        ('state != "a > b"', LabelExpression("state", "!=", "a > b")),
    ],
)
def test_expression_is_parsed(text, expected):
    assert parse_expression(text) == expected


@pytest.mark.parametrize("text", ["num", "num > ", "> 0", "num > x", "__import__('os')", "a = 1"])
def test_anything_else_is_no_expression(text):
    assert parse_expression(text) is None


def test_texts_are_not_compared_by_order():
    with pytest.raises(ConfigError, match="only be compared with == or !="):
        parse_expression("state > 'ill'")


@given(
    values=st.lists(st.none() | st.integers(-5, 5), min_size=1),
    operator=st.sampled_from([">", ">=", "<", "<=", "==", "!="]),
    constant=st.integers(-5, 5),
)
def test_outcome_is_the_comparison_and_missing_stays_missing(values, operator, constant):
    series = pl.Series([None if v is None else str(v) for v in values], dtype=pl.String)
    outcome = compute_label(series, LabelExpression("x", operator, float(constant)))
    expected = [None if v is None else eval(f"{v} {operator} {constant}") for v in values]
    assert outcome.to_list() == expected


def test_text_compared_with_a_number_is_refused():
    with pytest.raises(DataError, match="'x' holds text that is no number"):
        compute_label(pl.Series(["1", "high"]), LabelExpression("x", ">", 0.0))

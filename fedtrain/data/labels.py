"""Label expressions: `num > 0` turns a column into a yes-or-no label.

An expression is a column, one of `> >= < <= == !=`, and a number or a quoted text. It is parsed,
never evaluated as code.
"""

import re
from dataclasses import dataclass
from typing import Final

import polars as pl

from fedtrain.errors import ConfigError, DataError

EXPRESSION_NAMES: Final = ("false", "true")
_EXPRESSION: Final = re.compile(
    r"\s*(?P<column>.*?\S)\s*(?P<operator>>=|<=|==|!=|>|<)\s*"
    r"(?:(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<quote>['\"])(?P<text>.*)(?P=quote))\s*"
)


@dataclass(frozen=True)
class LabelExpression:
    """A comparison of one column with a constant.

    Attributes:
        column: Name of the column.
        operator: One of `> >= < <= == !=`.
        constant: What every value is compared with.
    """

    column: str
    operator: str
    constant: float | str


def parse_expression(text: str) -> LabelExpression | None:
    """Return the expression that `text` is, or None where it is no expression.

    Raises:
        ConfigError: A text is compared by order.
    """
    match = _EXPRESSION.fullmatch(text)
    if match is None:
        return None
    column, operator = match["column"], match["operator"]
    if match["number"] is not None:
        return LabelExpression(column, operator, float(match["number"]))
    if operator not in ("==", "!="):
        raise ConfigError(
            f"data.label = {text!r}: a text can only be compared with == or !=; compare a number"
        )
    return LabelExpression(column, operator, match["text"])


def compute_label(
    values: pl.Series, expression: LabelExpression, *, strict: bool = True
) -> pl.Series:
    """Return the outcome for every row: boolean, null where the value is missing.

    Args:
        values: The column, missing values as null.
        expression: What to compare with.
        strict: Refuse text where a number is asked for; else it counts as missing.

    Raises:
        DataError: A number is asked for and the column holds text, and `strict`.
    """
    constant = expression.constant
    if isinstance(constant, str):
        return _compare(values.cast(pl.String), expression.operator, constant)
    numbers = values.cast(pl.Float64, strict=False)
    if strict and numbers.null_count() > values.null_count():
        raise DataError(
            f"label column {expression.column!r} holds text that is no number; compare with a"
            f" quoted text, or list that text in data.missing"
        )
    return _compare(numbers, expression.operator, constant)


def _compare(values: pl.Series, operator: str, constant: float | str) -> pl.Series:
    match operator:
        case ">":
            return values > constant
        case ">=":
            return values >= constant
        case "<":
            return values < constant
        case "<=":
            return values <= constant
        case "==":
            return values == constant
        case _:
            return values != constant

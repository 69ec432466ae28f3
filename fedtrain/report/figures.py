"""Figures of a report: rounded against whoever reads them as small, and written for people."""

import math
from typing import Final

from fedtrain.report.tables import NOTHING

DIGITS: Final = 6  # significant; another processor may compute the seventh otherwise
_SLACK: Final = 1e-9


def round_up(value: float, digits: int = DIGITS) -> float:
    """Return a number of at least 0 rounded up in a significant digit; what is exact stays."""
    return _round(value, digits, upwards=True)


def round_near(value: float, digits: int = DIGITS) -> float:
    """Return a number rounded to the nearest in a significant digit."""
    return _round(value, digits, upwards=False)


def format_percent(share: float, *, digits: int = 1) -> str:
    """Return a share as percent, rounded up: `7.5 %`, `<0.1 %`; never 100 % for less."""
    percent = 100 * share
    if percent in (0, 100):
        return f"{percent:.0f} %"
    if percent < 10**-digits:
        return f"<{10**-digits:g} %"
    rounded = math.ceil(percent * 10**digits - _SLACK) / 10**digits
    return f"{rounded:.{digits}f} %" if rounded < 100 else f"{percent:.4f} %"


def format_rate(rate: float) -> str:
    """Return a rate that was chosen, as percent: `1 %`, `0.1 %`."""
    return f"{100 * rate:g} %"


def format_odds(share: float) -> str:
    """Return a small chance in words: `1 in 100,000`."""
    return f"1 in {round(1 / share):,}" if 0 < share < 1 else NOTHING


def join_words(words: list[str] | tuple[str, ...]) -> str:
    """Return `a`, `a and b` or `a, b and c`."""
    *head, last = words
    return f"{', '.join(head)} and {last}" if head else last


def _round(value: float, digits: int, *, upwards: bool) -> float:
    if value == 0 or not math.isfinite(value):
        return value
    scale = 10.0 ** (digits - 1 - math.floor(math.log10(abs(value))))
    scaled = value * scale
    # What is a rounding error above a digit is that digit.
    whole = math.ceil(scaled - abs(scaled) * _SLACK) if upwards else round(scaled)
    return float(f"{whole / scale:.{digits}g}")

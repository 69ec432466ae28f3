"""Numbers as text."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrain.report.tables import (
    format_bytes,
    format_epsilon,
    format_number,
    format_seconds,
    format_time,
    label_metric,
    make_console,
    make_table,
    thin,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.314, "0.31 s"), (59.6, "1 min 00 s"), (42, "42 s"), (7500, "2 h 05 min")],
)
def test_seconds_read_naturally(seconds: float | None, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(None, "-"), (512, "512 B"), (1536, "1.5 KiB"), (2**50, "1024.0 TiB")]
)
def test_bytes_read_naturally(count: float | None, text: str) -> None:
    assert format_bytes(count) == text


@given(st.floats(0, 1e6))
def test_epsilon_is_never_rounded_down(epsilon: float) -> None:
    shown = float(format_epsilon(epsilon))
    assert epsilon <= shown <= epsilon + 0.0101


def test_missing_numbers_are_dashes() -> None:
    assert format_number(None) == format_epsilon(None) == format_time(None) == "-"


def test_time_that_is_none_stays_as_it_is() -> None:
    assert format_time("yesterday") == "yesterday"


def test_metric_names_are_spelt_out() -> None:
    assert label_metric("val_loss") == "validation loss"
    assert label_metric("test_auc") == "test AUC"


@given(st.integers(0, 300), st.integers(2, 40), st.lists(st.integers(-5, 400), max_size=3))
def test_thinning_keeps_ends_and_what_must_stay(count: int, limit: int, keep: list[int]) -> None:
    chosen = thin(count, limit, keep)
    assert chosen == sorted(set(chosen))
    assert len(chosen) <= limit + len(keep)
    assert not count or {0, count - 1} <= set(chosen)
    assert {index for index in keep if 0 <= index < count} <= set(chosen)


def test_plain_output_has_no_colour_and_is_wide() -> None:
    file = io.StringIO()
    console = make_console(file)
    console.print(make_table(("a", "b"), [("[red]x[/red] :smile:", "1")], title="T"))
    assert console.width >= 100
    assert "[red]x[/red] :smile:" in file.getvalue()
    assert "\x1b" not in file.getvalue()


def test_column_without_values_is_left_out() -> None:
    table = make_table(("a", "b", "c"), [("x", "-", "1"), ("y", "-", "-")])
    assert [str(column.header) for column in table.columns] == ["a", "c"]

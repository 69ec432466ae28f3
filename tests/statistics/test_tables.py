"""Statistics as tables that fit a terminal."""

from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from fedtrain.data.columns import Category, Numeric, Table
from fedtrain.statistics.figures import build_figures
from fedtrain.statistics.plan import Range, StatisticsPlan
from fedtrain.statistics.records import compute_values
from fedtrain.statistics.tables import render_correlation


def show_correlation(columns):
    """Return the table of so many columns, of which the last is the first turned around."""
    generator = np.random.default_rng(1)
    names = [f"a column with a long name {number}" for number in range(columns)]
    values = {name: generator.uniform(0, 1, 200) for name in names}
    values[names[-1]] = 1 - values[names[0]]
    plan = StatisticsPlan(tuple(Range(name, 0, 1) for name in names), (), correlation=True)
    table = Table({name: Numeric(value) for name, value in values.items()}, 200)
    sums = compute_values(table, Category(np.zeros(200, np.int32), ("all",)), plan).sum(axis=0)
    figures = build_figures(plan, sums)
    assert render_correlation(replace(figures, correlation=None)) is None
    console = Console(width=100)
    with console.capture() as captured:
        console.print(render_correlation(figures))
    return captured.get()


@pytest.mark.parametrize("columns", [2, 9])
def test_few_columns_are_all_named_and_side_by_side(columns):
    text = show_correlation(columns)
    rows = [line for line in text.splitlines() if " a column with a long name " in line]
    assert [row.split()[0] for row in rows] == [str(n) for n in range(1, columns + 1)]
    assert all(len(row.split()) == 8 + columns for row in rows)


def test_of_many_columns_the_strongest_pairs_come_first():
    lines = show_correlation(12).splitlines()
    assert "20 strongest of 66 pairs" in lines[0]
    assert lines[4].split()[-1] == "-1.00"
    strengths = [abs(float(line.split()[-1])) for line in lines[4:24]]
    assert strengths == sorted(strengths, reverse=True)

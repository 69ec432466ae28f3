"""What a sum says, and what of it is withheld."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrain.data.columns import Category, Numeric, Table
from fedtrain.statistics.figures import OTHERS, build_figures, merge_bins, pool_small
from fedtrain.statistics.plan import Choice, Range, StatisticsPlan
from fedtrain.statistics.records import compute_values

COUNTS = st.lists(st.integers(0, 40), min_size=1, max_size=12)


def sum_table(columns, labels, plan):
    n = len(labels)
    category = Category(np.asarray(labels, np.int32), ("no", "yes"))
    return compute_values(Table(columns, n), category, plan).sum(axis=0)


@pytest.fixture
def figures():
    generator = np.random.default_rng(1)
    first = generator.uniform(0, 100, 400)
    second = first + generator.normal(0, 20, 400)
    second[:50] = np.nan
    plan = StatisticsPlan(
        (Range("a", 0, 100), Range("b", -100, 200)), (), ("no", "yes"), bins=50, correlation=True
    )
    columns = {"a": Numeric(first), "b": Numeric(second)}
    return first, second, build_figures(plan, sum_table(columns, [0, 1] * 200, plan))


def test_moments_are_those_of_the_records(figures):
    first, _, told = figures
    assert told.numeric[0].mean == pytest.approx(first.mean())
    assert told.numeric[0].variance == pytest.approx(first.var())
    assert told.records == 400


def test_quantiles_are_within_a_bin_of_the_records(figures):
    first, _, told = figures
    for share, value in told.numeric[0].quantiles.items():
        assert value == pytest.approx(np.quantile(first, float(share)), abs=4)


def test_correlation_is_over_the_records_that_have_both(figures):
    first, second, told = figures
    both = ~np.isnan(second)
    expected = np.corrcoef(first[both], second[both])[0, 1]
    assert told.correlation[0][1] == pytest.approx(expected)
    assert told.numeric[1].missing_share == pytest.approx(0.125)


@given(COUNTS, st.integers(1, 20))
def test_every_merged_bin_has_enough_records(counts, least):
    histogram = merge_bins(range(len(counts) + 1), np.array(counts, float), least)
    if histogram is None:
        assert sum(counts) < least or max(counts) < least
    else:
        assert min(histogram.counts) >= least
        assert sum(histogram.counts) == sum(counts)


@given(COUNTS, st.integers(1, 20))
def test_every_category_told_has_enough_records(counts, least):
    told = pool_small([str(i) for i in range(len(counts))], np.array(counts, float), least)
    assert all(count == 0 or count >= least for count in told.values())
    hidden = sum(counts) - sum(told.values())
    assert hidden == 0 or not told


def test_small_category_takes_the_next_into_its_pool():
    told = pool_small(["a", "b", "c"], np.array([3.0, 50.0, 90.0]), 10)
    assert told == {"c": 90.0, OTHERS: 53.0}


def test_few_missing_values_withhold_the_count_and_its_complement():
    values = np.append(np.full(3, np.nan), np.arange(97.0))
    plan = StatisticsPlan((Range("a", 0, 100),), (Choice("c", ("x",)),), ("no",), bins=5)
    columns = {"a": Numeric(values), "c": Category(np.zeros(100, np.int32), ("x",))}
    told = build_figures(plan, sum_table(columns, [0] * 100, plan)).numeric[0]
    assert told.count is None
    assert told.missing_share is None
    assert told.mean == pytest.approx(48)


def test_nothing_is_told_of_fewer_records_than_the_threshold():
    plan = StatisticsPlan((Range("a", 0, 100),), (), ("no", "yes"), bins=5)
    told = build_figures(plan, sum_table({"a": Numeric(np.arange(9.0))}, [0] * 9, plan))
    assert told.records is None
    assert told.numeric[0].mean is None
    assert told.numeric[0].quantiles == {}
    assert told.labels.counts == {}


def test_balanced_class_weights_are_told_where_every_class_is():
    plan = StatisticsPlan((), (), ("no", "yes"), bins=0)
    told = build_figures(plan, sum_table({}, [0] * 75 + [1] * 25, plan))
    assert told.compute_class_weights() == [0.667, 2.0]
    few = build_figures(plan, sum_table({}, [0] * 75 + [1] * 5, plan))
    assert few.compute_class_weights() is None

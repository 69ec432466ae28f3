"""Population stability of new data."""

import numpy as np
import pytest

from fedtrain.data.columns import Category, Numeric, Table
from fedtrain.errors import DataError
from fedtrain.statistics.drift import compute_stability_index, measure_drift
from fedtrain.statistics.plan import Range, StatisticsPlan
from fedtrain.statistics.records import compute_values

PLAN = StatisticsPlan((Range("a", -5, 5), Range("b", -5, 5)), (), ("no", "yes"), bins=20)


def sum_normal(seed, n=2000, shift=0.0, yes=0.5):
    generator = np.random.default_rng(seed)
    columns = {
        "a": Numeric(generator.normal(shift, 1, n)),
        "b": Numeric(generator.normal(0, 1, n)),
    }
    labels = Category((generator.random(n) < yes).astype(np.int32), ("no", "yes"))
    return compute_values(Table(columns, n), labels, PLAN).sum(axis=0)


def test_two_samples_of_one_population_do_not_drift():
    drift = measure_drift(PLAN, sum_normal(1), sum_normal(2), min_records=10)
    assert drift.drifted == ()
    assert max(shift.index for shift in drift.shifts) < 0.03


def test_shifted_column_says_retrain_and_is_named():
    drift = measure_drift(PLAN, sum_normal(1), sum_normal(2, shift=1.0), min_records=10)
    assert drift.drifted == ("a",)
    assert drift.shifts[0].index == pytest.approx(1.0, abs=0.2)  # shift^2 for two normal laws


def test_label_shift_is_found():
    drift = measure_drift(PLAN, sum_normal(1), sum_normal(2, yes=0.85), min_records=10)
    assert drift.drifted == ("label",)


def test_stability_index_agrees_with_its_definition():
    expected = 0.2 * np.log(0.6 / 0.4) * 2
    assert compute_stability_index([60, 40], [40, 60]) == pytest.approx(expected)


def test_too_few_new_records_are_an_error():
    with pytest.raises(DataError, match="min_records = 10"):
        measure_drift(PLAN, sum_normal(1), sum_normal(2, n=9), min_records=10)

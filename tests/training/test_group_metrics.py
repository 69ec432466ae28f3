"""Metrics by group, from each group's confusion matrix."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedtrain.training.group_metrics import compute_equalised_odds_gap, describe_parts
from fedtrain.training.metrics import MetricSums

A = np.array([[8, 2], [1, 9]])  # false positive rate 0.2, true positive rate 0.9
B = np.array([[5, 5], [3, 7]])  # 0.5, 0.7


def test_gap_of_two_classes_is_the_larger_of_both_rates():
    assert compute_equalised_odds_gap([A, B]) == pytest.approx(0.3)


def test_equal_groups_have_no_gap_whatever_their_size():
    assert compute_equalised_odds_gap([A, 3 * A]) == pytest.approx(0)


def test_class_of_one_group_alone_is_left_out():
    only = np.array([[0, 0], [1, 9]])
    assert compute_equalised_odds_gap([A, only]) == pytest.approx(0)
    assert compute_equalised_odds_gap([A]) is None


@given(st.lists(arrays(np.int64, (3, 3), elements=st.integers(0, 50)), min_size=1, max_size=4))
def test_gap_is_a_difference_of_rates(confusions):
    gap = compute_equalised_odds_gap(confusions)
    assert gap is None or 0 <= gap <= 1 + 1e-12


def test_parts_name_own_models_and_groups():
    parts = {
        "own": MetricSums(4.0, A),
        "group:f": MetricSums(1.0, A),
        "group:m": MetricSums(1.0, B),
    }
    metrics = describe_parts(parts)
    assert metrics["own_accuracy"] == metrics["group:f_accuracy"] == pytest.approx(17 / 20)
    assert metrics["group_worst_accuracy"] == metrics["group:m_accuracy"] == pytest.approx(12 / 20)
    assert metrics["group_equalised_odds_gap"] == pytest.approx(0.3)


def test_groups_without_a_record_are_left_out():
    empty = MetricSums(0.0, np.zeros((2, 2), np.int64))
    assert describe_parts({"group:f": empty, "group:m": None}) == {}


@pytest.mark.parametrize(("records", "told"), [(9, False), (10, True)])
def test_accuracy_of_a_few_is_not_told(records, told):
    few = MetricSums(1.0, np.array([[records, 0], [0, 0]]))
    metrics = describe_parts({"group:f": few, "group:m": MetricSums(1.0, B)})
    assert ("group:f_accuracy" in metrics) is told
    assert metrics["group_worst_accuracy"] == metrics["group:m_accuracy"]

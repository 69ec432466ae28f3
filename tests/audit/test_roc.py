"""Rates of attacks: by definition, beside scikit-learn's, and what their intervals cover."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from fedtrain.audit.roc import compute_curve, estimate_rates
from fedtrain.audit.roc_picture import Panel, draw_rocs
from fedtrain.errors import ConfigError


def draw_scores(shift, *, targets=8, records=400, seed=0):
    """Return scores of an attack that sees N(shift, 1) of members and N(0, 1) of others."""
    generator = np.random.default_rng(seed)
    members = generator.random((targets, records)) < 0.5
    return generator.normal(size=members.shape) + shift * members, members


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=4, max_size=60))
def test_auc_is_scikit_learns_with_ties_and_all(pairs):
    scores = np.array([score for score, _ in pairs], np.float64)
    members = np.array([member for _, member in pairs])
    if members.all() or not members.any():
        return
    expected = roc_auc_score(members, scores)
    assert compute_curve(scores, members).auc == pytest.approx(expected)


def test_rate_is_that_of_one_threshold():
    scores, members = np.array([4.0, 3, 2, 1]), np.array([True, False, True, False])
    curve = compute_curve(scores, members)
    assert [curve.find_rate(rate) for rate in (0, 0.49, 0.5, 1)] == [0.5, 0.5, 1, 1]


def test_equal_scores_say_nothing():
    members = np.arange(100) < 50
    curve = compute_curve(np.zeros(100), members)
    assert (curve.auc, curve.find_rate(0.01)) == (0.5, 0)


@pytest.mark.parametrize("targets", [1, 12])
def test_intervals_hold_the_true_rates(targets):
    scores, members = draw_scores(1.0, targets=targets, records=4800 // targets)
    rates = estimate_rates(scores, members, confidence=0.99, generator=np.random.default_rng(1))
    assert rates.auc.low < norm.cdf(1 / np.sqrt(2)) < rates.auc.high
    true = norm.sf(norm.isf(0.01) - 1)
    assert rates.found[0.01].low < true < rates.found[0.01].high


def test_attack_that_knows_nothing_is_at_chance():
    scores, members = draw_scores(0.0)
    rates = estimate_rates(scores, members, confidence=0.99, generator=np.random.default_rng(1))
    assert rates.auc.low < 0.5 < rates.auc.high
    assert rates.found[0.01].low < 0.01 < rates.found[0.01].high


@pytest.mark.parametrize("members", [[True, True], [False, False]])
def test_one_kind_of_records_is_refused(members):
    with pytest.raises(ConfigError, match="leave some out"):
        compute_curve(np.array([1.0, 2.0]), np.array(members))


def test_score_that_is_no_number_is_refused():
    with pytest.raises(ConfigError, match="diverged"):
        compute_curve(np.array([1.0, np.nan]), np.array([True, False]))


def test_same_rates_give_the_same_picture(tmp_path):
    scores, members = draw_scores(1.0)
    rates = estimate_rates(scores, members, confidence=0.95, generator=np.random.default_rng(1))
    for name in ("a.png", "b.png"):
        draw_rocs([Panel("A run", {"loss": rates}, lambda rate: 1.0, "bound")], tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()

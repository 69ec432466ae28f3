"""Scores of membership inference find members where models remember them, and only there."""

import numpy as np
import pytest
from scipy.special import log_softmax

from fedtrain.audit.membership import (
    compute_margins,
    score_by_lira,
    score_by_loss,
    score_by_rmia,
)
from fedtrain.audit.roc import compute_curve
from fedtrain.errors import ConfigError

RELATIVE = {"lira": score_by_lira, "rmia": score_by_rmia}


def draw_models(memory, *, models=16, records=3000, seed=0):
    """Return margins of models whose records are of unequal hardness; members gain `memory`."""
    generator = np.random.default_rng(seed)
    joined = generator.random((models, records)) < 0.5
    hardness = generator.normal(0, 3, records)
    return hardness + memory * joined + generator.normal(size=joined.shape), joined


def attack(score, memory):
    margins, joined = draw_models(memory)
    scores = score(margins[0], margins[1:], joined[1:])
    return compute_curve(scores, joined[0])


@pytest.mark.parametrize("name", RELATIVE)
def test_members_are_found_where_models_remember_and_only_there(name):
    remembered, forgotten = attack(RELATIVE[name], 2.0), attack(RELATIVE[name], 0.0)
    assert remembered.auc > 0.8
    assert abs(forgotten.auc - 0.5) < 0.03


def test_shadows_tell_hard_members_from_easy_others():
    margins, joined = draw_models(2.0)
    by_loss = compute_curve(score_by_loss(margins[0]), joined[0])
    assert by_loss.auc < attack(score_by_lira, 2.0).auc - 0.1
    assert by_loss.find_rate(0.01) < attack(score_by_lira, 2.0).find_rate(0.01) / 3


def test_lira_is_near_the_best_that_there_is():
    curve = attack(score_by_lira, 2.0)
    assert curve.auc == pytest.approx(0.921, abs=0.03)  # Phi(2 / sqrt(2)), spreads known


def test_margin_is_the_log_odds_of_the_true_label():
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(50, 4)), generator.integers(0, 4, 50)
    p = np.exp(log_softmax(logits, axis=1))[np.arange(50), labels]
    np.testing.assert_allclose(compute_margins(logits, labels), np.log(p / (1 - p)))


def test_margin_is_exact_where_the_probability_rounds_to_one():
    margins = compute_margins(np.array([[50.0, 0.0], [45.0, 0.0]]), np.array([0, 0]))
    np.testing.assert_allclose(margins, [50, 45])


def test_broken_logits_spoil_no_other_score():
    logits = np.array([[np.nan, 1.0], [np.inf, 0.0], [2.0, 1.0]])
    margins = compute_margins(logits, np.array([0, 0, 0]))
    assert np.isfinite(margins).all()
    assert margins[2] == pytest.approx(1)


@pytest.mark.parametrize("score", RELATIVE.values(), ids=RELATIVE)
def test_record_in_all_shadows_or_none_is_scored_all_the_same(score):
    margins, joined = draw_models(2.0, records=200)
    joined[1:, 0], joined[1:, 1] = True, False
    assert np.isfinite(score(margins[0], margins[1:], joined[1:])).all()


@pytest.mark.parametrize("score", RELATIVE.values(), ids=RELATIVE)
def test_too_few_shadows_are_refused(score):
    margins, joined = draw_models(1.0, models=3, records=10)
    with pytest.raises(ConfigError, match="too few"):
        score(margins[0], margins, joined)


@pytest.mark.parametrize("score", RELATIVE.values(), ids=RELATIVE)
def test_shadows_that_all_have_every_record_are_refused(score):
    margins, joined = draw_models(1.0, records=10)
    with pytest.raises(ConfigError, match="random parts"):
        score(margins[0], margins, np.ones_like(joined))

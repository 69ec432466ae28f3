"""Sentinels touch nothing but their rows, and their rows show all that a step gives away."""

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp, norm
from torch import nn

from fedtrain.audit.plants import PLANTS
from fedtrain.audit.record_level import decide, judge, make_claim
from fedtrain.audit.sentinels import (
    SentinelModel,
    draw_coins,
    find_table,
    make_model,
    pack,
    score_rows,
    simulate_scores,
    watch_steps,
)
from fedtrain.data.shards import Split
from fedtrain.plan import build_record_plan
from fedtrain.training.dp_sgd import make_book_keeper
from tests.audit.subjects import build, make_config, make_records, subject_of


def compute_sum(model, records, clip=0.3):
    keeper = make_book_keeper(model)
    features, labels = torch.from_numpy(records.features), torch.from_numpy(records.labels)
    parts, _ = keeper.compute_clipped_sum(features, labels, max_grad_norm=clip)
    return torch.cat([part.reshape(-1) for part in parts]).numpy()


def test_sentinels_change_nothing_but_their_rows():
    config, records = make_config(noise=1.0), make_records(10)
    plan = build_record_plan(config)
    model = make_model(build(config), records, sentinels=6, plan=plan)
    place = find_table(model)
    without = compute_sum(model, pack(records, np.array([], np.int64)))
    total = compute_sum(model, pack(records, np.array([2, 5])))
    assert without[place].tolist() == [0.0] * 7
    np.testing.assert_allclose(np.delete(total, np.r_[place]), np.delete(without, np.r_[place]))
    np.testing.assert_allclose(total[place], [0, 0, -0.3, 0, 0, -0.3, 0], rtol=1e-5)


def test_model_beside_a_table_answers_records_as_it_did():
    config, records = make_config(noise=1.0), make_records(10)
    model = build(config)
    beside = SentinelModel(model, (1, 8, 8), sentinels=3, max_grad_norm=1.0)
    packed = torch.from_numpy(pack(records, np.array([1])).features)
    assert torch.equal(beside(packed)[:-1], model(torch.from_numpy(records.features)))


def test_rows_show_presence_to_the_bit_where_there_is_hardly_any_noise():
    subject = subject_of(make_config(noise=1e-4, rounds=5))
    included = np.arange(40) < 20
    observed = watch_steps(
        subject, build(subject.claim), make_records(30), included=included, steps=20
    )
    presence = np.round(observed.rows)
    assert np.abs(observed.rows - presence).max() < 1e-3
    assert not presence[:, 20:].any()
    assert set(np.unique(presence)) == {0.0, 1.0}
    assert 60 < presence.sum() < 140  # 20 x 20 at a rate of 1/4


def test_sampler_draws_records_and_sentinels_once_a_step():
    subject = subject_of(make_config(noise=1.0, rounds=5))
    observed = watch_steps(
        subject, build(subject.claim), make_records(30), included=np.ones(10, bool), steps=7
    )
    assert (observed.asked, observed.units, len(observed.batch_sizes)) == (7, 40, 7)


def test_sentinels_among_persons_are_persons_of_their_own():
    subject = subject_of(make_config(unit="person", noise=1e-4, rounds=5))
    records = make_records(30, persons=6)
    observed = watch_steps(
        subject, build(subject.claim), records, included=np.ones(10, bool), steps=8
    )
    assert observed.units == 16
    assert set(np.unique(np.round(observed.rows))) == {0.0, 1.0}


def test_sentinels_stand_beside_token_ids():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(12, 3))
    tokens = np.random.default_rng(0).integers(0, 5, (9, 3))
    records = Split(tokens, np.zeros(9, np.int64))
    beside = SentinelModel(model, (3,), sentinels=2, max_grad_norm=0.3)
    total = compute_sum(beside, pack(records, np.array([2])))
    np.testing.assert_allclose(total[find_table(beside)], [0, 0, -0.3], rtol=1e-5)


@pytest.mark.parametrize("rate", [0.1, 1.0])
def test_score_is_the_log_likelihood_ratio(rate):
    plan = build_record_plan(make_config(noise=0.8, rate=rate))
    rows = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    out, present = norm.pdf(rows, 0, 0.8), norm.pdf(rows, 1, 0.8)
    expected = np.log(((1 - rate) * out + rate * present) / out).sum(axis=0)
    np.testing.assert_allclose(score_rows(rows, plan), expected, rtol=1e-6)


def test_coins_are_fair_and_others_for_another_seed():
    coins = draw_coins(10_000, seed=1)
    assert abs(coins.mean() - 0.5) < 0.02
    assert abs((coins == draw_coins(10_000, seed=2)).mean() - 0.5) < 0.02


def audit(config, *, seed=0, plant=None, canaries=5000):
    claim = make_claim(config, steps=500, canaries=canaries, confidence=0.95)
    subject = subject_of(config, seed=seed, **({"plant": PLANTS[plant]} if plant else {}))
    included = draw_coins(canaries, seed=seed)
    records = make_records()
    observed = watch_steps(subject, build(config), records, included=included, steps=claim.steps)
    return judge(score_rows(observed.rows, claim.plan), included, claim, confidence=0.95)


def test_bounds_through_the_real_step_are_those_of_the_trials():
    config = make_config(epsilon=7.2)
    runs = [audit(config, seed=seed) for seed in range(3)]
    assert 2.65 <= np.mean([figures["epsilon_lower_bound_steinke"] for figures in runs]) <= 7.2
    assert 3.53 <= np.mean([figures["epsilon_lower_bound"] for figures in runs]) <= 7.2


def test_half_the_noise_at_a_claim_of_4_is_caught():
    figures = audit(make_config(epsilon=4), plant="noise/2")
    assert figures["epsilon_lower_bound"] >= 4.29
    assert decide(figures, confidence=0.95) == "violated"


def test_few_steps_with_a_quarter_of_the_noise_are_caught():
    figures = audit(make_config(noise=0.8, rounds=2), plant="noise/4", canaries=1000)
    assert decide(figures, confidence=0.95) == "violated"


def test_scores_are_those_that_the_simulation_foretells():
    config, plan = make_config(epsilon=4), build_record_plan(make_config(epsilon=4))
    simulated, coins = simulate_scores(plan, 40)
    subject, included = subject_of(config), draw_coins(4000, seed=0)
    observed = watch_steps(subject, build(config), make_records(), included=included, steps=40)
    scores = score_rows(observed.rows, plan)
    assert ks_2samp(scores[included], simulated[coins]).pvalue > 0.001
    assert ks_2samp(scores[~included], simulated[~coins]).pvalue > 0.001
    assert ks_2samp(scores, simulated[coins]).pvalue < 1e-6


def test_run_without_noise_claims_nothing():
    config = make_config(noise=0.0)
    assert make_claim(config, steps=10, canaries=1000, confidence=0.95) is None


@pytest.mark.slow
def test_bounds_exceed_the_theorem_in_no_more_than_the_allowed_share_of_fifty_runs():
    config = make_config(epsilon=2)
    wrong = np.zeros(3)
    for seed in range(50):
        figures = audit(config, seed=seed, canaries=1000)
        wrong += (
            figures["epsilon_lower_bound"] > figures["epsilon_claimed"],
            figures["epsilon_lower_bound_steinke"] > figures["epsilon_claimed"],
            decide(figures, confidence=0.95) == "violated",
        )
    assert (wrong <= 6).all()  # 2.5 are expected at most; 7 or more have a chance of 1 %


@pytest.mark.slow
@pytest.mark.parametrize(("plant", "least"), [("noise/4", 1.0), ("noise/2", 0.25)])
def test_planted_noise_is_found_by_a_thousand_sentinels_at_a_claim_of_1(plant, least):
    config = make_config(epsilon=1)
    runs = [audit(config, seed=seed, plant=plant, canaries=1000) for seed in range(20)]
    found = [decide(figures, confidence=0.95) == "violated" for figures in runs]
    assert np.mean(found) >= least

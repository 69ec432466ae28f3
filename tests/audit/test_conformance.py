"""What the mechanism must not be: too quiet, unclipped, repeated, shuffled, divided by its data."""

from dataclasses import dataclass

import numpy as np
import pytest

from fedtrain.audit.conformance import measure_conformance
from fedtrain.audit.neighbour_steps import replay_neighbours
from fedtrain.audit.plants import PLANTS, Plant, Subject
from fedtrain.audit.sentinels import Observed
from fedtrain.audit.step_statistics import (
    compute_noise_p_value,
    compute_normality_p_value,
    compute_rate_p_value,
    compute_repetition_p_value,
    compute_variance_p_value,
)
from fedtrain.training.dp_sgd import PrivateGradients
from tests.audit.subjects import build, make_config, make_records, subject_of

CONFIG = make_config(noise=1.3, rounds=30)
GENERATOR = np.random.default_rng(0)


def measure(plant=None, *, config=CONFIG, seed=0, records=None, **sizes):
    subject = subject_of(config, seed=seed, **({"plant": plant} if plant else {}))
    return measure_conformance(subject, build(config), records or make_records(), **sizes)


@pytest.mark.parametrize("name", ["noise/2", "noise/4", "no-clip", "reused-noise"])
def test_planted_fault_is_found(name):
    assert measure(PLANTS[name], steps=20, rows=400).list_problems(0.95)


def test_two_per_cent_too_little_noise_is_seen():
    found = measure(Plant("quiet", "2 % too little", (), noise_divisor=1.02))
    assert found.list_problems(0.95) == ["less noise is added than claimed"]


def test_more_noise_than_claimed_is_no_problem():
    assert measure(Plant("loud", "2 % too much", (), noise_divisor=0.98)).list_problems(0.95) == []


@pytest.mark.parametrize(("unit", "persons"), [("record", None), ("person", 20)])
def test_honest_mechanism_has_no_problem(unit, persons):
    config = make_config(unit=unit, noise=1.3)
    found = measure(config=config, records=make_records(persons=persons), steps=60, rows=400)
    assert found.list_problems(0.99) == []
    assert 0.999 < found.replay.largest <= 1.00001


def test_false_alarms_are_as_rare_as_promised():
    alarms = sum(bool(measure(seed=s, steps=8, rows=100).list_problems(0.95)) for s in range(30))
    assert alarms <= 5  # 1.5 are expected at most; 6 or more have a chance of 0.3 %


@dataclass(frozen=True)
class ShuffledSubject(Subject):
    """Batches of one size: Poisson sampling in name only."""

    def make_sampling(self, round):
        return self

    def draw_poisson_subset(self, n, *, rate):
        return np.sort(GENERATOR.permutation(n)[: round(n * rate)])


def test_batches_of_one_size_are_found():
    subject = ShuffledSubject(CONFIG, CONFIG, PLANTS["no-mask"], 0)
    found = measure_conformance(subject, build(CONFIG), make_records(), steps=60, rows=100)
    assert any("the batch size does not vary" in problem for problem in found.list_problems(0.95))


class DividedByItsBatch(PrivateGradients):
    """The divisor is the number of records, as in Opacus' make_private."""

    def compute(self, features, labels, **options):
        parts, loss = super().compute(features, labels, **options)
        return [part / len(labels) for part in parts], loss


def test_divisor_that_follows_the_data_shows_in_untouched_parameters():
    subject, records = subject_of(CONFIG), make_records(20)
    honest = replay_neighbours(subject, build(CONFIG), records, pairs=5)
    divided = replay_neighbours(subject, build(CONFIG), records, pairs=5, step=DividedByItsBatch)
    assert honest.untouched_equal
    assert not divided.untouched_equal


def draw_null(statistic):
    noise = GENERATOR.normal(0, 1.3, (12, 60)).astype(np.float32)
    if statistic == "noise":
        return compute_noise_p_value(noise, 1.3)
    if statistic == "normality":
        return compute_normality_p_value(noise)
    if statistic == "repetition":
        return compute_repetition_p_value(noise)
    observed = Observed(noise, GENERATOR.binomial(80, 0.1, 30), 80, 30)
    if statistic == "rate":
        return compute_rate_p_value(observed, 0.1)
    return compute_variance_p_value(observed, 0.1, seed=int(GENERATOR.integers(2**31)))


@pytest.mark.parametrize("statistic", ["noise", "normality", "repetition", "rate", "variance"])
def test_p_value_is_small_as_rarely_as_it_says(statistic):
    found = np.array([draw_null(statistic) for _ in range(200)])
    assert np.count_nonzero(found <= 0.05) <= 19  # 10 are expected at most
    assert np.count_nonzero(found <= 0.01) <= 7


@pytest.mark.parametrize("claimed", [3 / 2, 1.05])
def test_noise_below_the_claim_is_rejected(claimed):
    noise = GENERATOR.normal(size=(100, 100)).astype(np.float32)
    assert compute_noise_p_value(noise, claimed) < 1e-6
    assert compute_noise_p_value(noise, 2 / 3) > 0.999


def test_noise_of_another_shape_is_rejected():
    for noise in (GENERATOR.laplace(size=(100, 100)), GENERATOR.uniform(-1, 1, (100, 100))):
        assert compute_normality_p_value(noise.astype(np.float32)) < 1e-6
    assert compute_normality_p_value(np.zeros((3, 3), np.float32)) == 0


def test_noise_that_is_used_twice_is_rejected():
    noise = GENERATOR.normal(size=(10, 50)).astype(np.float32)
    assert compute_repetition_p_value(np.vstack([noise, noise[3]])) < 1e-6
    assert compute_repetition_p_value(np.vstack([noise, -noise[3]])) < 1e-6
    assert compute_repetition_p_value(np.vstack([noise, np.zeros(50, np.float32)])) == 0


def test_another_rate_and_draws_from_elsewhere_are_rejected():
    rows, sizes = np.zeros((50, 1), np.float32), GENERATOR.binomial(400, 0.12, 50)
    assert compute_rate_p_value(Observed(rows, sizes, 400, 50), 0.1) < 1e-6
    assert compute_rate_p_value(Observed(rows, sizes, 400, 50), 0.15) < 1e-6
    assert compute_rate_p_value(Observed(rows, sizes, 400, 0), 0.12) == 0

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrain.training.schedules import Schedule, has_stalled


@given(
    st.sampled_from(["step", "cosine", None]),
    st.integers(1, 5),
    st.integers(0, 4),
    st.integers(1, 2000),
)
def test_factor_is_in_range_for_every_round(kind, rounds, warmup, round_):
    schedule = Schedule(kind, rounds, 0.1, warmup)
    assert 0 < schedule.compute_factor(round_, total=2000) <= 1


def test_step_halves_every_two_rounds_after_the_first():
    schedule = Schedule("step", 2, 0.5, 0)
    factors = [schedule.compute_factor(round_, total=9) for round_ in range(1, 7)]
    assert factors == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_cosine_falls_from_one_to_nearly_nothing():
    schedule = Schedule("cosine", 1, 0.5, 0)
    factors = [schedule.compute_factor(round_, total=20) for round_ in range(1, 21)]
    assert factors[0] == 1
    assert factors == sorted(factors, reverse=True)
    assert factors[-1] < 0.02


def test_warmup_rises_to_one():
    schedule = Schedule(None, 1, 0.5, 4)
    assert [schedule.compute_factor(r, total=9) for r in (1, 2, 3, 4, 5)] == [0.25, 0.5, 0.75, 1, 1]


@pytest.mark.parametrize(
    ("losses", "factor"),
    [([], 1.0), ([3, 2, 1], 1.0), ([1, 1, 1], 0.5), ([1, 2, 2, 0.5, 2], 0.5), ([1] * 5, 0.25)],
)
def test_plateau_drops_after_two_rounds_without_progress(losses, factor):
    assert Schedule("plateau", 2, 0.5, 0).compute_plateau_factor(losses) == factor


def test_patience_counts_evaluations_since_the_lowest_loss():
    assert not has_stalled([3, 1, 2], 2)
    assert has_stalled([3, 1, 2, 1.5], 2)
    assert not has_stalled([], 1)

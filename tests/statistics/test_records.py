"""What one record adds to a sum of statistics."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from fedtrain.config import parse_config
from fedtrain.data.columns import Category, Numeric, Table
from fedtrain.errors import ConfigError, DataError, PeerError
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.statistics.plan import Choice, Range, StatisticsPlan
from fedtrain.statistics.records import compute_values
from fedtrain.statistics.vector import StatisticsVector

ANY_FLOAT = st.floats(allow_nan=True, allow_infinity=True, width=64)
PLAN = StatisticsPlan(
    ranges=(Range("age", 0, 100), Range("dose", -5, 5)),
    choices=(Choice("sex", ("f", "m")),),
    labels=("no", "yes"),
    bins=4,
    correlation=True,
)
CONFIG = parse_config("[partition]\nsites = 4")


def make_table(numbers, codes):
    columns = {
        "age": Numeric(numbers[:, 0]),
        "dose": Numeric(numbers[:, 1]),
        "sex": Category(np.asarray(codes, np.int32), ("f", "m", "x")),
    }
    return Table(columns, len(numbers)), Category(np.zeros(len(numbers), np.int32), ("no",))


@given(
    arrays(np.float64, (3, 2), elements=ANY_FLOAT),
    st.lists(st.integers(-1, 2), min_size=3, max_size=3),
)
def test_record_values_never_exceed_the_norm_that_noise_is_made_for(numbers, codes):
    values = compute_values(*make_table(numbers, codes), PLAN)
    assert np.isfinite(values).all()
    assert (np.linalg.norm(values, axis=1) <= PLAN.compute_record_norm() * (1 + 1e-12)).all()
    assert values.shape == (3, PLAN.length)


def test_record_norm_is_reached():
    values = compute_values(*make_table(np.array([[100.0, 5.0]]), [0]), PLAN)
    assert np.linalg.norm(values) == pytest.approx(PLAN.compute_record_norm())


@given(arrays(np.float64, (2, 5), elements=ANY_FLOAT))
def test_record_of_an_array_never_exceeds_the_norm(features):
    plan = StatisticsPlan((Range("x", 0, 16),), (), (), bins=8)
    values = compute_values(features, Category(np.zeros(2, np.int32), ("a",)), plan)
    assert (np.linalg.norm(values, axis=1) <= plan.compute_record_norm() * (1 + 1e-12)).all()


@given(arrays(np.float64, (4, 2), elements=ANY_FLOAT))
def test_one_record_moves_the_encoded_vector_by_at_most_the_sensitivity(numbers):
    plan = StatisticsPlan(**(PLAN.__dict__ | {"noise_multiplier": 1.0}))
    layout = StatisticsVector(plan, CONFIG, cohort=4)
    table, labels = make_table(numbers, [0, 1, 2, -1])
    one = np.array([3])
    words = layout.encode(
        table.take(one),
        labels.take(one),
        rounding=SecureGenerator.from_seed(1, "rounding"),
        noise=SecureGenerator.from_seed(1, "noise"),
    )
    noise = layout.encode(
        table.take(one[:0]),
        labels.take(one[:0]),
        rounding=SecureGenerator.from_seed(1, "rounding"),
        noise=SecureGenerator.from_seed(1, "noise"),
    )
    moved = (words - noise).view("<i4").astype(np.float64)
    assert np.linalg.norm(moved) <= layout.share.sensitivity


def test_site_with_too_many_records_refuses_exact_sums():
    layout = StatisticsVector(
        StatisticsPlan(**(PLAN.__dict__ | {"max_records": 2})), CONFIG, cohort=4
    )
    generator = SecureGenerator.from_seed(1)
    with pytest.raises(DataError, match="max_records = 2"):
        layout.encode(*make_table(np.zeros((3, 2)), [0] * 3), rounding=generator, noise=generator)


def test_plan_survives_its_text():
    assert StatisticsPlan.from_text(PLAN.to_text()) == PLAN


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"ranges": [{"name": 1}]}'])
def test_plan_of_a_stranger_is_refused(text):
    with pytest.raises(PeerError):
        StatisticsPlan.from_text(text)


def test_plan_of_too_many_sums_is_refused():
    with pytest.raises(ConfigError, match="sums are above"):
        StatisticsPlan(tuple(Range(str(i), 0, 1) for i in range(1000)), (), correlation=True)


def draw_noise(variance_share):
    """Return the noise of a site without records, scaled to the claimed standard deviation."""
    plan = StatisticsPlan(
        tuple(Range(str(i), 0, 1) for i in range(100)), (), bins=100, noise_multiplier=1.0
    )
    layout = StatisticsVector(plan, CONFIG, cohort=4)
    claimed = layout.share.share_variance
    changed = layout.share.model_copy(update={"share_variance": int(claimed * variance_share)})
    layout.share = changed
    empty = Category(np.empty(0, np.int32), ())
    generator = SecureGenerator.from_seed(7, "noise")
    columns = {str(i): Numeric(np.empty(0)) for i in range(100)}
    words = layout.encode(Table(columns, 0), empty, rounding=generator, noise=generator)
    return words.view("<i4") / claimed**0.5


def has_claimed_deviation(noise):
    low, high = stats.chi2.ppf([1e-6, 1 - 1e-6], len(noise))
    return low < float(np.sum(noise**2)) < high


def test_every_sum_carries_the_claimed_noise():
    assert has_claimed_deviation(draw_noise(1.0))


@pytest.mark.parametrize("factor", [2 / 3, 3 / 2])
def test_noise_of_another_size_is_told_apart(factor):
    assert not has_claimed_deviation(draw_noise(factor**2))

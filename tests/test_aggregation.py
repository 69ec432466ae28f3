import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.aggregation import (
    build_evaluation_encoding,
    build_training_encoding,
    decode_evaluation,
    decode_training,
    encode_evaluation,
    encode_training,
)
from fedtrain.config import parse_config
from fedtrain.errors import DataError
from fedtrain.plan import resolve
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.secagg.faults import UpdateRangeError
from fedtrain.training.metrics import MetricSums

CONFIG = resolve(parse_config("[secure_aggregation]\nmax_weight = 1000"))
ENCODING = build_training_encoding(CONFIG, size=4, cohort=5)


def encode(update, weight=10, loss=1.0, seed=0):
    return encode_training(
        ENCODING,
        np.array(update, np.float32),
        weight=weight,
        train_loss=loss,
        section=CONFIG.secure_aggregation,
        max_weight=1000,
        generator=SecureGenerator.from_seed(seed, "rounding"),
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-4, 4), st.integers(1, 1000)), min_size=1, max_size=5))
def test_sum_decodes_to_the_weighted_average(sites):
    words = [encode([x, 0, -x, 1], w, seed=i) for i, (x, w) in enumerate(sites)]
    total = np.sum(words, axis=0, dtype=np.uint32)
    result = decode_training(ENCODING, total, survivors=len(sites), max_weight=1000)
    weights = [w for _, w in sites]
    expected = np.average([[x, 0, -x, 1] for x, _ in sites], axis=0, weights=weights)
    assert result.weight == sum(weights)
    tolerance = 1000 * len(sites) * ENCODING.compute_resolution("update") / sum(weights)
    np.testing.assert_allclose(result.average, expected, atol=tolerance + 1e-6)
    assert result.train_loss == pytest.approx(1.0, abs=0.01)


def test_weight_above_its_public_bound_counts_as_the_bound():
    total = encode([1, 0, 0, 0], weight=5000) + encode([0, 0, 0, 0], weight=1000)
    result = decode_training(ENCODING, total, survivors=2, max_weight=1000)
    assert result.weight == 2000
    assert result.average[0] == pytest.approx(0.5, abs=1e-3)


def test_update_beyond_its_norm_is_refused_and_not_clipped():
    encode([16, 0, 0, 0])
    with pytest.raises(UpdateRangeError, match=r"norm is 16\.97.*max_update_norm = 16"):
        encode([12, 12, 0, 0])


def test_small_weight_does_not_hide_an_update_beyond_its_norm():
    with pytest.raises(UpdateRangeError):
        encode([100, 0, 0, 0], weight=1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_update_that_is_not_finite_is_refused(value):
    with pytest.raises((UpdateRangeError, DataError)):
        encode([value, 0, 0, 0])


def test_evaluations_add_up_and_a_site_without_records_adds_nothing():
    encoding = build_evaluation_encoding(CONFIG, classes=2, cohort=3)
    sums = MetricSums(1.5, np.array([[3, 1], [0, 2]]))
    full = MetricSums.zero(2)
    generator = SecureGenerator.from_seed(0, "rounding")
    words = [
        encode_evaluation(encoding, sums, full, generator=generator),
        encode_evaluation(encoding, sums, None, generator=generator),
        encode_evaluation(encoding, None, None, generator=generator),
    ]
    total = np.sum(words, axis=0, dtype=np.uint32)
    validation, test = decode_evaluation(encoding, total, survivors=3)
    assert validation[1:].tolist() == [6, 2, 0, 4]
    assert validation[0] == pytest.approx(3.0, abs=0.01)
    assert len(test) == 0

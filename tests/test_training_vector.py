import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedtrain.config import parse_config
from fedtrain.errors import ConfigError, DataError
from fedtrain.plan import build_site_plan, get_threshold
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.resolution import resolve
from fedtrain.secagg.faults import UpdateRangeError
from fedtrain.training_vector import TrainingVector

CONFIG = resolve(parse_config("[secure_aggregation]\nmax_weight = 1000"))
LAYOUT = TrainingVector(CONFIG, size=4, cohort=5)
SITE = """
[partition]
sites = 10
[privacy]
unit = "site"
[privacy.site]
noise_multiplier = 1.5
max_update_norm = 2.0
"""
NOBODY = SecureGenerator.from_seed(0, "nobody")


def encode(update, weight=10, loss=1.0, seed=0):
    return LAYOUT.encode(
        np.array(update, np.float32),
        weight=weight,
        train_loss=loss,
        rounding=SecureGenerator.from_seed(seed, "rounding"),
        noise=NOBODY,
    )


def decode(layout, total, survivors, seed=0):
    noise = SecureGenerator.from_seed(seed, "top up")
    return layout.decode(np.array(total, np.uint32), survivors=survivors, noise=noise)


def make_layout(text=SITE, *, size=1000, cohort=10, clip=None):
    return TrainingVector(resolve(parse_config(text)), size=size, cohort=cohort, clip=clip)


def encode_many(layout, updates, *, seed=0):
    """Return the words of sites with these updates, each with its own noise."""
    return [
        layout.encode(
            np.asarray(update, np.float32),
            weight=1,
            train_loss=0.0,
            rounding=SecureGenerator.from_seed(seed, "rounding", i),
            noise=SecureGenerator.from_seed(seed, "noise", i),
        )
        for i, update in enumerate(updates)
    ]


def add(words):
    return np.sum(words, axis=0, dtype=np.uint32)


def is_normal_of(sample, stddev):
    """Say whether a sample's deviation is this one, at a level of one in a million."""
    low, high = stats.chi2.ppf([5e-7, 1 - 5e-7], len(sample))
    return low < np.sum((sample / stddev) ** 2) < high


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-4, 4), st.integers(1, 1000)), min_size=1, max_size=5))
def test_sum_decodes_to_the_weighted_average(sites):
    words = [encode([x, 0, -x, 1], w, seed=i) for i, (x, w) in enumerate(sites)]
    result = decode(LAYOUT, add(words), len(sites))
    weights = [w for _, w in sites]
    expected = np.average([[x, 0, -x, 1] for x, _ in sites], axis=0, weights=weights)
    assert result.weight == sum(weights)
    tolerance = 1000 * len(sites) * LAYOUT.encoding.compute_resolution("update") / sum(weights)
    np.testing.assert_allclose(result.average, expected, atol=tolerance + 1e-6)
    assert result.train_loss == pytest.approx(1.0, abs=0.01)


def test_weight_above_its_public_bound_counts_as_the_bound():
    total = encode([1, 0, 0, 0], weight=5000) + encode([0, 0, 0, 0], weight=1000)
    result = decode(LAYOUT, total, 2)
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


def test_suppressed_metrics_have_no_place_in_the_vector():
    text = SITE.replace("[privacy]", '[privacy]\nmetrics = "uncovered"')
    assert make_layout(text).encoding.length == make_layout().encoding.length + 1 == 1001


@pytest.mark.parametrize(("loss", "counted"), [(1e30, 100), (np.inf, 100), (np.nan, 0), (-1, 0)])
def test_loss_beyond_its_bound_does_not_make_a_protected_site_drop_out(loss, counted):
    layout = make_layout(SITE.replace("[privacy]", '[privacy]\nmetrics = "uncovered"'), size=4)
    generator = SecureGenerator.from_seed(0, "any")
    words = layout.encode(
        np.zeros(4, np.float32), weight=1, train_loss=loss, rounding=generator, noise=generator
    )
    assert decode(layout, words, 1).train_loss == pytest.approx(counted, abs=1e-3)


@pytest.mark.parametrize("survivors", [7, 10])
def test_noise_of_any_survivors_is_at_least_the_claimed(survivors):
    layout = make_layout(size=200_000)
    total = add(encode_many(layout, [np.zeros(200_000)] * survivors))
    noise = decode(layout, total, survivors).average * 10
    honest = survivors - 1  # one of ten may side with the coordinator and takes its noise off
    claimed = 1.5 * 2.0 * (1 + 200_000**0.5 / layout.encoding.scales["update"] / 2)
    assert np.std(noise) * (honest / survivors) ** 0.5 > claimed * 0.995
    assert is_normal_of(noise, claimed * (survivors / 6) ** 0.5)
    for wrong in (2 / 3, 3 / 2, 0.98):
        assert not is_normal_of(noise * wrong, claimed * (survivors / 6) ** 0.5)


@pytest.mark.parametrize("kind", ["large", "nan", "inf", "ordinary"])
def test_one_site_changes_the_sum_by_at_most_the_sensitivity(kind):
    layout = make_layout()
    update = np.random.default_rng(0).normal(size=1000)
    update = {"large": 1e30 * update, "nan": update * np.nan, "inf": update + np.inf}.get(
        kind, update
    )
    with_it, without = (encode_many(layout, [u])[0] for u in (update, np.zeros(1000)))
    difference = (with_it - without).view(np.int32).astype(np.float64)
    assert np.linalg.norm(difference) <= layout.share.sensitivity


def test_claimed_noise_is_of_the_rounded_vector_and_not_of_the_clip():
    layout = make_layout(size=10**6)
    scale = layout.encoding.scales["update"]
    assert layout.share.sensitivity >= 2.0 * scale + 1000
    needed = (1.5 * layout.share.sensitivity) ** 2
    assert layout.share.shares * layout.share.share_variance >= needed


def test_divisor_is_public_whatever_number_survives():
    layout = make_layout(SITE.replace("1.5", "0.0"), size=3)
    total = add(encode_many(layout, [[1.0, 0, 0]] * 7))
    result = decode(layout, total, 7)
    assert result.weight == 10
    assert result.average[0] == pytest.approx(0.7, abs=1e-4)


SAMPLED = """
[partition]
sites = 400
[federation]
site_sample_rate = 0.25
[privacy]
unit = "site"
[privacy.site]
noise_multiplier = 1.5
target_delta = 1e-5
max_update_norm = 2.0
"""


def measure_noise(cohort, *, topped_up):
    layout = make_layout(SAMPLED, size=50_000, cohort=cohort)
    total = add(encode_many(layout, [np.zeros(50_000)] * cohort, seed=cohort))
    if topped_up:
        return np.std(decode(layout, total, cohort).average)
    return np.std(layout.encoding.decode_sum(total, cohort)["update"])


def test_noise_of_a_sampled_sum_does_not_tell_its_cohorts_size():
    assert measure_noise(8, topped_up=True) == pytest.approx(
        measure_noise(13, topped_up=True), rel=0.02
    )


def test_without_the_top_up_the_noise_would_tell_the_cohorts_size():
    ratio = measure_noise(8, topped_up=False) / measure_noise(13, topped_up=False)
    assert abs(ratio - 1) > 0.03


def test_sampled_sums_have_one_scale_whatever_the_cohort():
    scales = {make_layout(SAMPLED, cohort=n).encoding.scales["update"] for n in (3, 10, 100, 400)}
    assert len(scales) == 1


def test_sampled_sum_never_has_more_noise_than_it_is_topped_up_to():
    config = resolve(parse_config(SAMPLED))
    plan = build_site_plan(config)
    for cohort in range(3, 401):
        shares = plan.count_shares(cohort, get_threshold(config, cohort))
        share = plan.make_share(2.0, scale=2.0**18, dimension=10**6, shares=shares)
        assert plan.compute_top_up(share, cohort) >= 0


ADAPTIVE = SITE + 'clipping = "adaptive"\n'


def test_clipping_bits_count_updates_within_the_clip():
    layout = make_layout(ADAPTIVE.replace("1.5", "1e-4"), size=4, clip=1.0)
    updates = [[0.5, 0, 0, 0]] * 7 + [[3.0, 0, 0, 0]] * 3
    sums = [add(encode_many(layout, updates, seed=i)) for i in range(100)]
    results = [decode(layout, total, 10) for total in sums]
    assert np.mean([one.below for one in results]) == pytest.approx(2.0, abs=0.3)
    assert results[0].average[0] == pytest.approx(0.65, abs=0.01)
    assert len(results[0].average) == 4


def test_noise_of_the_clipping_bits_is_the_planned_one():
    layout = make_layout(ADAPTIVE, size=1, clip=1.0)
    sums = [
        decode(layout, add(encode_many(layout, [[0.0]] * 10, seed=i)), 10).below for i in range(400)
    ]
    planned = build_site_plan(resolve(parse_config(ADAPTIVE))).bit_noise_multiplier
    assert is_normal_of(np.array(sums) - 5, planned * (10 / 6) ** 0.5)


def test_noise_too_small_for_the_ring_is_refused():
    text = SITE.replace("1.5", "0.001") + "[secure_aggregation]\nring_bits = 16\n"
    with pytest.raises(ConfigError, match=r"variance \d+ in units of the ring, below 1024"):
        make_layout(text)

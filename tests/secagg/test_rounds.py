"""Whole rounds: the sum is exact whoever drops out, or nothing is unmasked."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.secagg import RoundVoidError, compute_default_threshold
from fedtrain.secagg.coordinator import CoordinatorSession
from tests.secagg.federation import Federation, Round, name_sites

STAGES = ("advertise", "share", "mask", "sign", "unmask")


@st.composite
def draw_case(draw):
    """n, t, ring, length and who falls silent at which stage."""
    n = draw(st.integers(3, 8))
    threshold = draw(st.integers(n // 2 + 1, n))
    fates = draw(st.lists(st.sampled_from([None, None, None, *STAGES]), min_size=n, max_size=n))
    drops = {
        one: [s for s, f in zip(name_sites(n), fates, strict=True) if f == one] for one in STAGES
    }
    return n, threshold, draw(st.sampled_from([16, 20, 32])), draw(st.integers(1, 70)), drops


@given(draw_case())
@settings(max_examples=60, deadline=None)
def test_sum_is_exact_or_the_round_is_void(case):
    n, threshold, ring_bits, length, drops = case
    federation = Federation(n, min_threshold_share=0.5)
    context = federation.make_context(threshold=threshold, ring_bits=ring_bits, length=length)
    attempt = Round(federation, context, drops)
    total = attempt.run()
    early = sum(len(drops[stage]) for stage in STAGES[:3])
    late = sum(len(drops[stage]) for stage in STAGES[3:])
    enough = early <= n - max(threshold, 3) and early + late <= n - threshold
    assert (total is not None) == enough
    if enough:
        assert set(attempt.survivors.survivors) == set(attempt.alive("mask", federation.sites))
        assert np.array_equal(total, attempt.compute_plain_sum())


@pytest.mark.parametrize("stage", STAGES)
def test_round_below_the_threshold_is_void_and_the_next_one_runs(stage):
    federation = Federation(7)
    failed = Round(federation, federation.make_context(), {stage: federation.sites[:3]})
    assert failed.run() is None
    assert failed.void.reason == ("too-few-shares" if stage == "unmask" else "too-few-sites")
    following = Round(federation, federation.make_context(round=2), label=1)
    assert np.array_equal(following.run(), following.compute_plain_sum())


def test_void_attempt_is_run_again_with_fresh_keys():
    federation = Federation(7)
    first = Round(federation, federation.make_context(), {"mask": federation.sites[:3]})
    assert first.run() is None
    again = Round(federation, federation.make_context(attempt=1), label=1)
    assert np.array_equal(again.run(), again.compute_plain_sum())
    assert first.vectors["site-004"].tobytes() != again.vectors["site-004"].tobytes()


@pytest.mark.slow
def test_hundred_sites_with_thirty_dropouts_at_every_stage_sum_exactly():
    federation = Federation(100)
    drops = {one: federation.sites[6 * i : 6 * i + 6] for i, one in enumerate(STAGES)}
    attempt = Round(federation, federation.make_context(length=1000), drops)
    assert np.array_equal(attempt.run(), attempt.compute_plain_sum())
    assert len(attempt.survivors.survivors) == 82


@pytest.mark.slow
def test_sparse_graph_of_many_sites_sums_exactly():
    federation = Federation(204)
    drops = {"share": federation.sites[:8], "mask": federation.sites[100:112]}
    context = federation.make_context()
    attempt = Round(federation, context, drops)
    assert context.neighbours == 74
    assert np.array_equal(attempt.run(), attempt.compute_plain_sum())


def test_threads_do_not_change_the_sum():
    federation = Federation(4)
    context = federation.make_context(length=300_001)
    attempt = Round(federation, context, {"mask": ["site-002"]})
    attempt.coordinator = CoordinatorSession(context, federation.roster, threads=3)
    assert np.array_equal(attempt.run(), attempt.compute_plain_sum())


def test_seeded_rounds_repeat_to_the_byte():
    runs = [Round(Federation(4), Federation(4).make_context()) for _ in range(2)]
    totals = [one.run() for one in runs]
    assert np.array_equal(*totals)
    records = [one.coordinator.transcript.to_record() for one in runs]
    assert records[0] == records[1]


def test_steps_out_of_order_are_programming_errors():
    federation = Federation(4)
    attempt = Round(federation, federation.make_context()).run_until("share")
    with pytest.raises(RuntimeError, match="stage"):
        attempt.announce("site-000")
    with pytest.raises(RuntimeError, match="stage"):
        attempt.sessions["site-000"].export_state()
    with pytest.raises(RuntimeError, match="'mask' was called in stage 'share'"):
        attempt.coordinator.close_vectors()


def test_vector_of_another_shape_or_type_is_a_programming_error():
    federation = Federation(4)
    attempt = Round(federation, federation.make_context()).run_until("mask")
    session, delivery = attempt.sessions["site-000"], attempt.deliveries["site-000"]
    for vector in (np.zeros(63, "<u4"), np.zeros(64, "<u2")):
        with pytest.raises(ValueError, match="the context asks for"):
            session.mask(vector, delivery)


def test_nothing_more_is_taken_after_the_end():
    federation = Federation(4)
    attempt = Round(federation, federation.make_context()).run_until("finish")
    attempt.coordinator.finish()
    with pytest.raises(RuntimeError):
        attempt.coordinator.finish()


def test_secrets_are_wiped_once_the_vector_is_masked():
    federation = Federation(4)
    attempt = Round(federation, federation.make_context()).run_until("mask")
    session = attempt.sessions["site-001"]
    secrets = [*session._secrets, *session._agreed.values()]
    session.mask(attempt.vectors["site-001"], attempt.deliveries["site-001"])
    assert len(secrets) == 6
    assert not any(map(any, secrets))
    assert session._secrets == []


def test_default_threshold_is_the_smallest_above_two_thirds():
    assert [compute_default_threshold(n) for n in (3, 4, 5, 6, 10, 100)] == [3, 3, 4, 5, 7, 67]


def test_void_round_says_why_and_takes_no_more():
    federation = Federation(4)
    attempt = Round(federation, federation.make_context(), {"advertise": federation.sites[:2]})
    with pytest.raises(RoundVoidError, match="2 sites are below the threshold 3"):
        attempt.advertise()
    with pytest.raises(RuntimeError):
        attempt.coordinator.close_advertisements()
    assert attempt.coordinator.transcript.to_record()["void"] == "too-few-sites"


def test_memory_is_that_of_one_vector_at_site_and_coordinator():
    federation = Federation(8)
    context = federation.make_context(length=500_000)
    attempt = Round(federation, context, {"mask": ["site-007"]}).run_until("mask")
    tracemalloc.start()
    attempt.mask()
    attempt.sign()
    attempt.unmask()
    attempt.coordinator.finish()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * context.length + 2**20  # the vectors themselves were there before

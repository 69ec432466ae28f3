"""A site that restarts never re-uses a mask key and never answers twice."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from fedtrain.privacy.generator import SecureGenerator
from fedtrain.secagg import (
    MemoryStore,
    MessageError,
    RefusalError,
    SiteSession,
    decode,
    encode,
    make_roster,
    sign_roster,
)
from fedtrain.secagg.messages import SiteRecord, SurvivorSet
from tests.secagg.federation import CONFIG, MODEL, ROOT, Federation, Round

SITE = "site-001"


def start(stage, n=6):
    federation = Federation(n)
    return Round(federation, federation.make_context()).run_until(stage)


def restart(attempt, site=SITE):
    """A session made from the store alone."""
    federation = attempt.federation
    state = federation.stores[site].load(attempt.context.run)
    return SiteSession.restore(
        state,
        site,
        identity=federation.identities[site],
        policy=federation.policy,
        store=federation.stores[site],
        generator=SecureGenerator.from_system(),
    )


def refuses(reason):
    return pytest.raises(RefusalError, check=lambda error: error.reason == reason)


def test_restart_before_masking_makes_new_keys():
    attempt = start("share")
    fresh = attempt.federation.make_session(SITE, label="restarted")
    again = fresh.advertise(attempt.context, config_digest=CONFIG, model_digest=MODEL)
    first = next(one for one in attempt.listed.advertisements if one.site == SITE)
    assert again.mask_key != first.mask_key
    with refuses("own-entry"):
        fresh.share_keys(attempt.listed)


def test_restart_after_masking_does_not_mask_again():
    attempt = start("sign")
    fresh = attempt.federation.make_session(SITE, label="restarted")
    with refuses("already-masked"):
        fresh.advertise(attempt.context, config_digest=CONFIG, model_digest=MODEL)


def test_second_session_of_the_same_attempt_does_not_mask():
    attempt = start("mask")
    twin = attempt.federation.make_session(SITE)
    twin.advertise(attempt.context, config_digest=CONFIG, model_digest=MODEL)
    twin.share_keys(attempt.listed)
    delivery = attempt.deliveries[SITE]
    twin.mask(attempt.plain[SITE].copy(), delivery)
    with refuses("already-masked"):
        attempt.sessions[SITE].mask(attempt.vectors[SITE], delivery)
    assert np.array_equal(attempt.vectors[SITE], attempt.plain[SITE])


@pytest.mark.parametrize("stage", ["sign", "unmask"])
def test_round_goes_on_after_a_restart_of_every_site(stage):
    attempt = start(stage)
    attempt.sessions = {site: restart(attempt, site) for site in attempt.sessions}
    if stage == "sign":
        attempt.sign()
    attempt.unmask()
    assert np.array_equal(attempt.coordinator.finish(), attempt.compute_plain_sum())


def test_restarted_site_signs_the_same_survivor_set_only():
    attempt = start("unmask")
    again = restart(attempt)
    assert again.stage == 4
    with refuses("already-answered"):
        again.sign_survivors(SurvivorSet(attempt.survivors.survivors[:5]))
    signatures = {one.site: one for one in attempt.signatures.signatures}
    assert again.sign_survivors(attempt.survivors) == signatures[SITE]


def test_restarted_site_repeats_its_unmasking_to_the_byte():
    attempt = start("finish")
    first = attempt.sessions[SITE].unmask(attempt.signatures)
    again = restart(attempt)
    assert again.stage == 5
    assert again.unmask(attempt.signatures) == first
    assert again.export_state() == attempt.sessions[SITE].export_state()


def test_state_is_stored_before_every_answer_leaves():
    class Failing:
        def load(self, key):
            return None

        def save(self, key, data):
            raise OSError("disk full")

        def lock(self, key):
            return contextlib.nullcontext()

    attempt = start("mask")
    session = attempt.sessions[SITE]
    session._store = Failing()
    with pytest.raises(OSError, match="disk full"):
        session.mask(attempt.vectors[SITE], attempt.deliveries[SITE])
    assert np.array_equal(attempt.vectors[SITE], attempt.plain[SITE])


@pytest.mark.parametrize("step", ["sign", "unmask"])
def test_answer_does_not_leave_if_it_cannot_be_stored(step, monkeypatch):
    attempt = start(step)
    session = attempt.sessions[SITE]
    before = session.export_state()
    monkeypatch.setattr(attempt.federation.stores[SITE], "save", lambda *_: 1 / 0)
    steps = {"sign": session.sign_survivors, "unmask": session.unmask}
    asked = attempt.survivors if step == "sign" else attempt.signatures
    with pytest.raises(ZeroDivisionError):
        steps[step](asked)
    assert session.export_state() == before


def test_held_shares_are_forgotten_once_they_are_revealed():
    attempt = start("finish")
    record = decode(attempt.sessions[SITE].export_state(), SiteRecord)
    assert record.held == ()
    assert record.unmasking


def test_half_that_is_never_revealed_is_forgotten_on_signing():
    federation = Federation(6)
    drops = {"mask": ["site-005"]}
    attempt = Round(federation, federation.make_context(), drops).run_until("unmask")
    for one in decode(attempt.sessions[SITE].export_state(), SiteRecord).held:
        kept, gone = one.seed_share, one.key_share
        if one.site == "site-005":
            kept, gone = gone, kept
        assert any(kept)
        assert not any(gone)


def test_record_of_a_run_does_not_grow_with_rounds():
    federation = Federation(4)
    sizes = []
    for number in (1, 2, 3):
        context = federation.make_context(round=number)
        Round(federation, context, label=number).run_until("finish")
        sizes.append(len(federation.stores[SITE].load("run-1")))
    assert sizes[0] == sizes[1] == sizes[2]


def test_other_run_of_the_same_site_is_independent():
    federation = Federation(4)
    Round(federation, federation.make_context()).run_until("finish")
    other = Round(federation, federation.make_context(run="run-2"), label=1)
    assert np.array_equal(other.run(), other.compute_plain_sum())


def test_state_that_is_none_is_refused():
    attempt = start("sign")
    state = attempt.sessions[SITE].export_state()
    attempt.federation.stores[SITE].save("run-1", state[:-1])
    with pytest.raises(MessageError, match="truncated"):
        restart(attempt)
    with pytest.raises(MessageError):
        restart_with(attempt, replace(decode(state, SiteRecord), stage=3))


def restart_with(attempt, record):
    attempt.federation.stores[SITE].save("run-1", encode(record) + b"\x00")
    return restart(attempt)


def test_state_of_a_replaced_roster_is_refused():
    attempt = start("sign")
    federation = attempt.federation
    newer = make_roster("test", 2, keys=federation.policy.get_keys())
    federation.policy = replace(federation.policy, roster=sign_roster(newer, ROOT))
    with refuses("context"):
        restart(attempt)


class Racing(MemoryStore):
    """Two processes of a site that read at the same time, if nothing keeps them apart."""

    def __init__(self, store, *, locked):
        super().__init__()
        self._items = store._items
        self._locked = locked
        self._barrier = threading.Barrier(2)

    def load(self, key):
        state = super().load(key)
        with contextlib.suppress(threading.BrokenBarrierError):
            self._barrier.wait(0.2)
        return state

    def lock(self, key):
        return super().lock(key) if self._locked else contextlib.nullcontext()


def sign_at_once(*, locked):
    """Ask two processes of one site for different survivor sets; the signatures they give."""
    attempt = start("sign")
    sets = attempt.survivors.survivors, attempt.survivors.survivors[:5]
    sessions = [restart(attempt) for _ in sets]
    store = Racing(attempt.federation.stores[SITE], locked=locked)
    for session in sessions:
        session._store = store
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(session.sign_survivors, SurvivorSet(survivors))
            for session, survivors in zip(sessions, sets, strict=True)
        ]
    return [job.result() for job in jobs if job.exception() is None]


def test_two_processes_at_once_sign_one_set():
    assert len(sign_at_once(locked=True)) == 1


def test_two_processes_at_once_would_sign_two_sets_if_unlocked():
    assert len({one.signature for one in sign_at_once(locked=False)}) == 2

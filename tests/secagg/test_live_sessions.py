"""A process that lives on goes on with the session it holds, unless the store says otherwise."""

from collections import Counter

import pytest

from fedtrain.secagg import RefusalError, SiteSession
from fedtrain.secagg.messages import AdvertisementList
from tests.secagg.federation import Federation
from tests.secagg.test_replay import SITE, DurableRound


@pytest.fixture
def calls(monkeypatch):
    """How often a session dealt its shares, by site."""
    counted = Counter()
    deal = SiteSession.share_keys

    def share_keys(session, listed):
        counted[session._site] += 1
        return deal(session, listed)

    monkeypatch.setattr(SiteSession, "share_keys", share_keys)
    return counted


def start(stage, lives_on=True):
    federation = Federation(4)
    federation.processes_live_on = lives_on
    return DurableRound(federation, federation.make_context()).run_until(stage)


@pytest.mark.parametrize(("lives_on", "times"), [(True, 1), (False, 2)])
def test_held_session_spares_the_steps_before(calls, lives_on, times):
    start("sign", lives_on)
    assert calls[SITE] == times


def test_session_is_held_for_one_step_only(calls):
    attempt = start("mask")
    with pytest.raises(RefusalError):
        attempt.sessions[SITE].mask(attempt.vectors[SITE], attempt.deliveries["site-002"])
    attempt.mask()
    assert calls[SITE] == 2


def test_session_is_not_used_when_another_process_answered_meanwhile(calls):
    attempt = start("share")
    held = dict(attempt.federation.live[SITE])
    fewer = AdvertisementList(attempt.listed.advertisements[:3])
    attempt.federation.live[SITE].clear()
    other = attempt.sessions[SITE].share_keys(fewer)
    attempt.federation.live[SITE] = held
    with pytest.raises(RefusalError, match="other advertisements"):
        attempt.sessions[SITE].share_keys(attempt.listed)
    assert attempt.sessions[SITE].share_keys(fewer) == other


def test_session_is_not_used_for_a_new_attempt_of_another_process():
    attempt = start("share")
    held = dict(attempt.federation.live[SITE])
    attempt.federation.live[SITE].clear()
    attempt.announce(SITE, attempt.federation.make_context(attempt=1))
    attempt.federation.live[SITE] = held
    with pytest.raises(RefusalError, match="this site"):
        attempt.sessions[SITE].share_keys(attempt.listed)


def test_session_is_not_used_under_another_policy(calls):
    attempt = start("mask")
    strict = Federation(4, min_threshold_share=0.99).policy
    attempt.federation.policy = strict
    with pytest.raises(RefusalError, match="threshold"):
        attempt.sessions[SITE].mask(attempt.vectors[SITE], attempt.deliveries[SITE])
    assert calls[SITE] == 1

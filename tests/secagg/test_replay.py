"""Sessions whose process ends after every message: same keys, same answers, nothing twice."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from fedtrain.errors import ConfigError
from fedtrain.secagg import (
    DurableSession,
    FileStore,
    Identity,
    RefusalError,
    SiteSession,
    binding,
    decode,
    encode,
    policy,
)
from fedtrain.secagg.graph import GraphPlan
from fedtrain.secagg.messages import (
    AdvertisementList,
    AttemptRecord,
    ShareDelivery,
    SignatureList,
    SurvivorSet,
)
from fedtrain.secagg.replay import load_context, load_pinned, pin_text
from tests.secagg.federation import CONFIG, MODEL, Federation, Round, name_sites
from tests.secagg.test_restarts import Racing
from tests.secagg.test_rounds import draw_case

SITE, OTHER = "site-001", "site-002"
STAGES = ("advertise", "share", "mask", "sign", "unmask")
STEPS = ("advertise", "share_keys", "mask", "sign_survivors", "unmask")


@pytest.fixture(autouse=True, params=[False, True], ids=["ends", "lives-on"])
def process(request, monkeypatch):
    """Run each test twice: a site's process ends after each message, or holds its session."""
    monkeypatch.setattr(Federation, "processes_live_on", request.param)


class Reborn:
    """A site that is a new object for every message; `kind` may lack a check."""

    def __init__(self, federation, site, run="run-1", kind=DurableSession):
        self._make = lambda: federation.make_durable(site, run=run, kind=kind)

    def __getattr__(self, name):
        return getattr(self._make(), name)


class DurableRound(Round):
    """A round in which every site is made anew for every message."""

    kind = DurableSession

    def __post_init__(self):
        super().__post_init__()
        run, kind = self.context.run, self.kind
        self.sessions = {s: Reborn(self.federation, s, run, kind) for s in self.context.cohort}

    @property
    def store(self):
        return self.federation.stores[SITE]

    def load_attempt(self):
        return decode(self.store.load(f"attempt/{self.context.run}"), AttemptRecord)


def start(stage, n=4, kind=DurableRound, **changes):
    federation = Federation(n)
    return kind(federation, federation.make_context(**changes)).run_until(stage)


def refuses(reason):
    return pytest.raises(RefusalError, check=lambda error: error.reason == reason)


# Whole rounds


@given(draw_case())
@settings(max_examples=15, deadline=None)
def test_sum_of_sites_that_restart_at_every_message_is_exact_or_void(case):
    n, threshold, ring_bits, length, drops = case
    federation = Federation(n, min_threshold_share=0.5)
    context = federation.make_context(threshold=threshold, ring_bits=ring_bits, length=length)
    attempt = DurableRound(federation, context, drops)
    total = attempt.run()
    usual = Round(Federation(n, min_threshold_share=0.5), context, drops).run()
    assert (total is None) == (usual is None)
    if total is not None:
        assert np.array_equal(total, attempt.compute_plain_sum())


def test_rounds_and_attempts_follow_each_other_over_stores_on_disk(tmp_path):
    federation = Federation(4)
    federation.stores = {s: FileStore.create(tmp_path / s) for s in federation.sites}
    void = {"mask": federation.sites[:2]}
    assert DurableRound(federation, federation.make_context(), void).run() is None
    for changes in ({"attempt": 1}, {"round": 2}):
        attempt = DurableRound(federation, federation.make_context(**changes))
        assert np.array_equal(attempt.run(), attempt.compute_plain_sum())
    assert len(list((tmp_path / SITE).glob("*.state"))) == 2


@pytest.mark.parametrize("stage", STAGES[1:])
def test_site_that_restarts_before_one_stage_only_goes_on(stage):
    """What the replayed session answers is what one that never ended would have answered."""
    federation = Federation(4)
    attempt = DurableRound(federation, federation.make_context())
    attempt.sessions[SITE] = federation.make_durable(SITE)
    attempt.run_until(stage)
    attempt.sessions[SITE] = federation.make_durable(SITE)
    for name in STAGES[STAGES.index(stage) :]:
        getattr(attempt, name)()
    assert np.array_equal(attempt.coordinator.finish(), attempt.compute_plain_sum())


# Asked again


def test_advertisement_and_shares_are_repeated_to_the_byte():
    attempt = start("share")
    first = next(one for one in attempt.listed.advertisements if one.site == SITE)
    assert attempt.announce(SITE) == first
    dealt = attempt.sessions[SITE].share_keys(attempt.listed)
    assert attempt.announce(SITE) == first
    assert attempt.sessions[SITE].share_keys(attempt.listed) == dealt


def test_signature_and_unmasking_are_repeated_to_the_byte():
    attempt = start("unmask")
    session = attempt.sessions[SITE]
    signature = session.sign_survivors(attempt.survivors)
    assert signature in attempt.signatures.signatures
    answer = session.unmask(attempt.signatures)
    assert session.unmask(SignatureList(())) == answer
    assert session.sign_survivors(attempt.survivors) == signature


def test_masked_vector_is_not_made_twice():
    attempt = start("sign")
    with refuses("already-masked"):
        attempt.sessions[SITE].mask(attempt.plain[SITE].copy(), attempt.deliveries[SITE])
    with refuses("already-masked"):
        attempt.announce(SITE)


def test_step_can_be_asked_again_after_a_refusal():
    attempt = start("share", n=4)
    session = attempt.sessions[SITE]
    with refuses("cohort"):
        session.share_keys(AdvertisementList(attempt.listed.advertisements[:2]))
    attempt.share()
    with refuses("recipients"):
        session.mask(attempt.vectors[SITE], replace(attempt.deliveries[SITE], packets=()))
    for name in STAGES[2:]:
        getattr(attempt, name)()
    assert np.array_equal(attempt.coordinator.finish(), attempt.compute_plain_sum())


@pytest.mark.parametrize("step", STEPS[1:])
def test_step_before_its_turn_is_a_refusal(step):
    session = Federation(4).make_durable(SITE)
    arguments = {
        "share_keys": (AdvertisementList(()),),
        "mask": (np.zeros(64, "<u4"), ShareDelivery((), ())),
        "sign_survivors": (SurvivorSet(()),),
        "unmask": (SignatureList(()),),
    }[step]
    with refuses("out-of-turn"):
        getattr(session, step)(*arguments)


def test_step_before_the_one_that_is_due_is_a_refusal():
    attempt = start("share")
    with refuses("out-of-turn"):
        attempt.sessions[SITE].mask(attempt.vectors[SITE], ShareDelivery((), ()))
    attempt = start("sign")
    with refuses("out-of-turn"):
        attempt.sessions[SITE].unmask(SignatureList(()))


# The seed


def test_seed_is_kept_until_the_vector_is_masked_and_no_longer():
    attempt = start("mask")
    seed = attempt.load_attempt().seed
    assert len(seed) == 32
    attempt.mask()
    assert attempt.load_attempt() == AttemptRecord(attempt.context, b"", b"")
    assert seed not in b"".join(attempt.store._items.values())


def test_new_attempt_has_a_new_seed_and_ends_the_old_one():
    attempt = start("share")
    old = attempt.load_attempt()
    again = attempt.federation.make_context(attempt=1)
    attempt.announce(SITE, again)
    assert attempt.load_attempt().seed != old.seed
    with refuses("own-entry"):
        attempt.sessions[SITE].share_keys(attempt.listed)
    assert load_context(attempt.store, "run-1") == again


def test_same_attempt_of_another_context_has_a_new_seed():
    attempt = start("share", n=5)
    fewer = attempt.federation.make_context(cohort=name_sites(4))
    first = attempt.load_attempt().seed
    attempt.announce(SITE, fewer)
    second = attempt.load_attempt().seed
    attempt.announce(SITE)
    assert len({first, second, attempt.load_attempt().seed}) == 3


def test_state_is_stored_before_every_answer_leaves(monkeypatch):
    attempt = start("advertise")
    for step, stage in zip(STEPS, STAGES, strict=True):
        with monkeypatch.context() as patch:
            patch.setattr(attempt.store, "save", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                ask(attempt, step)
        getattr(attempt, stage)()


def ask(attempt, step):
    """Ask the site for what comes next."""
    session = attempt.sessions[SITE]
    if step == "advertise":
        return attempt.announce(SITE)
    if step == "mask":
        return session.mask(attempt.plain[SITE].copy(), attempt.deliveries[SITE])
    asked = {
        "share_keys": lambda: attempt.listed,
        "sign_survivors": lambda: attempt.survivors,
        "unmask": lambda: attempt.signatures,
    }[step]()
    return getattr(session, step)(asked)


def test_seed_of_a_process_killed_after_it_masked_is_forgotten(monkeypatch):
    """Between its two writes: the vector never left, and the next process forgets the seed."""
    attempt = start("mask")
    kill_at_forgetting(attempt, monkeypatch)
    assert attempt.load_attempt().seed
    with refuses("already-masked"):
        attempt.sessions[SITE].mask(attempt.vectors[SITE], attempt.deliveries[SITE])
    assert not attempt.load_attempt().seed


def test_advertising_again_forgets_the_seed_of_a_process_killed_after_it_masked(monkeypatch):
    attempt = start("mask")
    kill_at_forgetting(attempt, monkeypatch)
    with refuses("already-masked"):
        attempt.announce(SITE)
    assert not attempt.load_attempt().seed


def kill_at_forgetting(attempt, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(DurableSession, "_forget", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            attempt.sessions[SITE].mask(attempt.plain[SITE].copy(), attempt.deliveries[SITE])


def test_load_context_says_which_round_is_under_way():
    attempt = start("advertise")
    assert load_context(attempt.store, "run-1") is None
    for name in STAGES:
        getattr(attempt, name)()
        assert load_context(attempt.store, "run-1") == attempt.context


# Attacks on what is stored between messages; controls leave out one check


class ForgetfulSession(DurableSession):
    """Replays without looking whether other advertisements were answered."""

    def _check_unanswered(self, kept, listed):
        pass


class CarelessSession(ForgetfulSession):
    """And keeps the seed after masking."""

    def _forget(self, kept):
        return kept


class CarelessRound(DurableRound):
    kind = CarelessSession


def show_fewer(attempt, gone):
    """The advertisements without those of a site, which every site that is left is shown."""
    left = tuple(one for one in attempt.listed.advertisements if one.site != gone)
    return AdvertisementList(left)


def test_replay_with_other_peers_keys_after_a_restart_is_refused():
    attempt = start("mask", n=5)
    session = attempt.sessions[SITE]
    before = attempt.load_attempt()
    with refuses("already-answered"):
        session.share_keys(show_fewer(attempt, "site-004"))
    assert attempt.load_attempt() == before


def test_replay_after_masking_is_refused():
    attempt = start("sign", n=5)
    with refuses("already-masked"):
        attempt.sessions[SITE].share_keys(show_fewer(attempt, "site-004"))


def test_replay_in_a_sparse_graph_would_deal_one_secret_to_two_neighbourhoods(monkeypatch):
    """If unchecked: whoever holds the threshold in neither of them may hold it in both."""
    for module in (binding, policy):
        monkeypatch.setattr(module, "plan_graph", lambda *_, **__: GraphPlan(2, 2, 0))
    attempt = start("mask", n=7, neighbours=2)
    naive = attempt.federation.make_durable(SITE, kind=ForgetfulSession)
    first = {one.site for one in naive.share_keys(attempt.listed).packets}
    second = set()
    for gone in sorted(set(attempt.context.cohort) - {SITE} - first):
        second |= {one.site for one in naive.share_keys(show_fewer(attempt, gone)).packets}
    assert len(first) == 2
    assert second - first


def test_replay_with_one_site_fewer_would_reveal_its_update_if_unchecked(monkeypatch):
    """Without this module's checks and the session's history: two sums, and their difference."""
    monkeypatch.setattr(SiteSession, "_check_history", lambda *_: None)
    attempt = start("share", n=5, kind=CarelessRound)
    listed = attempt.listed
    attempt.share()
    attempt.mask()
    attempt.sign()
    attempt.unmask()
    total = attempt.coordinator.finish()
    second = replay(attempt, listed, gone="site-004")
    assert np.array_equal(total - second, attempt.plain["site-004"])


def replay(attempt, listed, *, gone):
    """Run the stages after round 0 again, among the sites but one."""
    again = CarelessRound(attempt.federation, attempt.context)
    for one in listed.advertisements:
        if one.site != gone:
            again.coordinator.receive_advertisement(one)
    again.listed = again.coordinator.close_advertisements()
    for name in STAGES[1:]:
        getattr(again, name)()
    return again.coordinator.finish()


def test_history_of_the_session_stops_a_replay_too():
    """Defence in depth: without this module's checks a second vector is refused all the same."""
    attempt = start("sign", n=5, kind=CarelessRound)
    session = attempt.sessions[SITE]
    with refuses("already-masked"):
        session.share_keys(show_fewer(attempt, "site-004"))
    with refuses("already-masked"):
        session.mask(attempt.plain[SITE].copy(), attempt.deliveries[SITE])


def test_vector_masked_twice_would_reveal_the_difference_if_unchecked(monkeypatch):
    """The same message asked again after training anew: one mask, two vectors."""
    monkeypatch.setattr(SiteSession, "_check_history", lambda *_: None)
    attempt = start("mask", kind=CarelessRound)
    first, second = attempt.plain[SITE].copy(), attempt.plain[OTHER].copy()
    for vector in (first, second):
        attempt.sessions[SITE].mask(vector, attempt.deliveries[SITE])
    assert np.array_equal(first - second, attempt.plain[SITE] - attempt.plain[OTHER])


def test_forgotten_seed_alone_stops_a_second_vector(monkeypatch):
    monkeypatch.setattr(SiteSession, "_check_history", lambda *_: None)
    attempt = start("sign")
    with refuses("already-masked"):
        attempt.sessions[SITE].mask(attempt.plain[SITE].copy(), attempt.deliveries[SITE])


def test_context_of_another_run_is_refused():
    federation = Federation(4)
    session = federation.make_durable(SITE, run="run-1")
    with refuses("context"):
        session.advertise(
            federation.make_context(run="run-2"), config_digest=CONFIG, model_digest=MODEL
        )


def advertise_at_once(*, locked):
    """Ask two processes of one site for the keys of one attempt; those it is left with, too."""
    federation = Federation(4)
    federation.stores[SITE] = Racing(federation.stores[SITE], locked=locked)
    attempt = DurableRound(federation, federation.make_context())
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(attempt.announce, SITE) for _ in range(2)]
    return {job.result() for job in jobs} | {attempt.announce(SITE)}


def test_two_processes_at_once_have_the_same_keys():
    assert len(advertise_at_once(locked=True)) == 1


def test_two_processes_at_once_would_have_different_keys_if_unlocked():
    assert len(advertise_at_once(locked=False)) == 2


def test_two_runs_of_a_site_do_not_share_a_seed():
    federation = Federation(4)
    seeds = []
    for run in ("run-1", "run-2"):
        context = federation.make_context(run=run)
        attempt = DurableRound(federation, context).run_until("share")
        seeds.append(attempt.load_attempt().seed)
    assert len(set(seeds)) == 2


def test_identity_that_the_roster_does_not_list_is_refused():
    federation = Federation(4)
    federation.identities[SITE] = Identity.generate()
    with pytest.raises(ConfigError, match="not the roster's"):
        federation.make_durable(SITE)


def test_what_is_pinned_stays():
    federation = Federation(4)
    store = federation.stores[SITE]
    for _ in range(2):
        pin_text(store, "training", "run-1")
    pin_text(store, "evaluation", "run-2")
    with refuses("context"):
        pin_text(store, "training", "run-2")
    pinned = [load_pinned(store, name) for name in ("training", "evaluation", "statistics")]
    assert pinned == ["run-1", "run-2", None]


def test_damaged_attempt_is_refused():
    attempt = start("share")
    attempt.store.save("attempt/run-1", encode(attempt.load_attempt())[:-1])
    with pytest.raises(Exception, match="truncated"):
        attempt.sessions[SITE].share_keys(attempt.listed)

"""A coordinator that sends any stage of any attempt in any order, to sites that restart each time.

Whatever it does: a site masks one vector an attempt, signs one survivor set a round and takes no
part in another attempt of it afterwards, and of no peer reveals both secrets.
"""

import contextlib
from collections import defaultdict

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from fedtrain.secagg import DurableSession, RefusalError, SiteSession, decode
from fedtrain.secagg.messages import (
    AdvertisementList,
    ShareDelivery,
    SignatureList,
    SiteRecord,
    SurvivorSet,
)
from tests.secagg.federation import CONFIG, MODEL, Federation, name_sites
from tests.secagg.test_replay import CarelessSession

SITES = name_sites(5)
ATTEMPTS = [(number, attempt, n) for number in (1, 2) for attempt in (0, 1) for n in (5, 4)]
WHICH = st.sampled_from(ATTEMPTS)
GONE = st.none() | st.sampled_from(SITES)


def leave_out(known, gone):
    return [known[name] for name in sorted(known) if name != gone]


class CoordinatorAtWill(RuleBasedStateMachine):
    """Every rule is a stage of an attempt: sent to all sites, with one site left out of it."""

    kind = DurableSession

    def __init__(self):
        super().__init__()
        self.federation = Federation(5)
        self.answers = defaultdict(dict)  # by stage and attempt: the last answer of each site
        self.shown = {}  # by stage and attempt: what the sites were shown last
        self.masked = defaultdict(int)
        self.signed = defaultdict(set)
        self.revealed = defaultdict(set)

    def make_context(self, which):
        number, attempt, n = which
        return self.federation.make_context(round=number, attempt=attempt, cohort=SITES[:n])

    def ask_all(self, stage, which, ask):
        """Ask every site of the cohort; those that refuse do not answer."""
        for name in SITES[: which[2]]:
            session = self.federation.make_durable(name, kind=self.kind)
            with contextlib.suppress(RefusalError):
                answer = ask(session, name)
                self.answers[stage, which][name] = answer
                self.note(stage, answer)

    def note(self, stage, answer):
        """Check an answer against those before it; its round is what the site has on disk."""
        if stage in ("advertise", "share"):
            return
        context = decode(self.federation.stores[answer.site].load("run-1"), SiteRecord).context
        round_of_site = answer.site, context.round
        if stage == "mask":
            self.masked[*round_of_site, context.attempt] += 1
            assert self.masked[*round_of_site, context.attempt] == 1, "two vectors of an attempt"
            assert not self.signed[round_of_site], "a vector after the round was signed"
        if stage == "sign":
            self.signed[round_of_site].add(answer.signature)
            assert len(self.signed[round_of_site]) == 1, "two survivor sets of a round"
        if stage == "unmask":
            for kind in ("seed", "key"):
                for one in getattr(answer, f"{kind}_shares"):
                    self.revealed[*round_of_site, one.site].add((kind, one.share))
                    assert len(self.revealed[*round_of_site, one.site]) == 1, "both shares"

    @rule(which=WHICH)
    def advertise(self, which):
        context = self.make_context(which)
        digests = {"config_digest": CONFIG, "model_digest": MODEL}
        self.ask_all("advertise", which, lambda one, _: one.advertise(context, **digests))

    @rule(which=WHICH, gone=GONE)
    def share(self, which, gone):
        listed = AdvertisementList(tuple(leave_out(self.answers["advertise", which], gone)))
        self.ask_all("share", which, lambda one, _: one.share_keys(listed))

    @rule(which=WHICH, gone=GONE)
    def mask(self, which, gone):
        dealt = leave_out(self.answers["share", which], gone)
        senders = tuple(one.site for one in dealt)
        vectors = self.federation.draw_vectors(self.make_context(which))

        def ask(session, name):
            packets = tuple(
                replace_site(packet, one.site)
                for one in dealt
                for packet in one.packets
                if packet.site == name
            )
            return session.mask(vectors[name], ShareDelivery(senders, packets))

        self.ask_all("mask", which, ask)

    @rule(which=WHICH, gone=GONE)
    def sign(self, which, gone):
        survivors = tuple(one.site for one in leave_out(self.answers["mask", which], gone))
        self.ask_all("sign", which, lambda one, _: one.sign_survivors(SurvivorSet(survivors)))

    @rule(which=WHICH, gone=GONE)
    def unmask(self, which, gone):
        listed = SignatureList(tuple(leave_out(self.answers["sign", which], gone)))
        self.ask_all("unmask", which, lambda one, _: one.unmask(listed))

    @rule(which=WHICH, gone=GONE)
    def run_through(self, which, gone):
        """All stages, one site left out of the last ones: so that long ways are not rare."""
        self.advertise(which)
        self.share(which, None)
        self.mask(which, None)
        self.sign(which, gone)
        self.unmask(which, None)


def replace_site(packet, site):
    return type(packet)(site, packet.ciphertext, packet.seed_commitment, packet.key_commitment)


TestCoordinatorAtWill = CoordinatorAtWill.TestCase
TestCoordinatorAtWill.settings = settings(max_examples=30, stateful_step_count=15, deadline=None)


def test_round_goes_through_where_the_coordinator_keeps_to_the_order():
    machine = CoordinatorAtWill()
    machine.run_through((1, 0, 5), None)
    assert len(machine.answers["unmask", (1, 0, 5)]) == 5
    machine.run_through((2, 0, 5), "site-004")
    assert len(machine.answers["unmask", (2, 0, 5)]) == 4


class AtWillWithoutHistory(CoordinatorAtWill):
    kind = CarelessSession


def test_machine_notices_a_second_vector(monkeypatch):
    monkeypatch.setattr(SiteSession, "_check_history", lambda *_: None)
    machine = AtWillWithoutHistory()
    machine.run_through((1, 0, 5), None)
    with pytest.raises(AssertionError, match="two vectors"):
        machine.mask((1, 0, 5), None)


def test_machine_notices_a_round_run_again(monkeypatch):
    monkeypatch.setattr(SiteSession, "_check_history", lambda *_: None)
    machine = AtWillWithoutHistory()
    machine.run_through((1, 0, 5), None)
    with pytest.raises(AssertionError, match="after the round was signed"):
        machine.run_through((1, 1, 4), None)

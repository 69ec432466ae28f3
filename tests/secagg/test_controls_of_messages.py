"""The attacks on lists, shares and bytes with one check taken out, as in `test_controls`."""

from dataclasses import replace

import numpy as np
import pytest

from fedtrain.secagg import (
    CoordinatorSession,
    MessageError,
    RefusalError,
    RoundVoidError,
    SiteSession,
    binding,
    codec,
    decode,
    encode,
    policy,
    site,
)
from fedtrain.secagg.messages import (
    AdvertisementList,
    RevealedShare,
    SignatureList,
    SurvivorSet,
)
from fedtrain.secagg.openings import Openings
from tests.secagg.federation import CONFIG, MODEL, Federation, Round
from tests.secagg.test_controls import LAST, OTHER, VICTIM, WeakFederation, mask_all, refuses

# Lists


class Repeating(CoordinatorSession):
    """Lists its last site twice wherever it lists sites, so that they look like one more."""

    def close_advertisements(self):
        ads = super().close_advertisements().advertisements
        listed = AdvertisementList((*ads, ads[-1]))
        self._transcript_digest = binding.compute_transcript(self._context, listed)
        return listed

    def close_shares(self):
        deliveries = super().close_shares()
        senders = (*self._senders, self._senders[-1])
        self._view = binding.compute_view(self._transcript_digest, senders)
        return {name: replace(one, senders=senders) for name, one in deliveries.items()}

    def close_vectors(self):
        survivors = super().close_vectors().survivors
        survivors = (*survivors, survivors[-1])
        self._outcome = binding.compute_outcome(self._view, survivors)
        return SurvivorSet(survivors)

    def close_signatures(self):
        listed = super().close_signatures()
        cohort = self._context.cohort  # the point of a site is that of its first place
        self._openings._points = {name: cohort.index(name) + 1 for name in cohort}
        return listed


def repeat_last_site():
    """Three sites that each demand four."""
    federation = WeakFederation(4, min_cohort=4)
    context = federation.make_context(cohort=("site-000", VICTIM, OTHER, OTHER))
    attempt = Round(federation, context)
    attempt.context = replace(context, cohort=("site-000", VICTIM, OTHER))  # whom it asks
    attempt.announce = lambda name: announce(attempt.sessions[name], context)
    attempt.coordinator = Repeating(context, federation.roster)
    attempt.share = lambda: share_once(attempt)
    attempt.sign = lambda: sign_once(attempt)
    return attempt


def announce(session, context):
    return session.advertise(context, config_digest=CONFIG, model_digest=MODEL)


def share_once(attempt):
    for session in attempt.sessions.values():
        attempt.coordinator.receive_shares(session.share_keys(attempt.listed))
    attempt.deliveries = attempt.coordinator.close_shares()


def sign_once(attempt):
    for session in attempt.sessions.values():
        attempt.coordinator.receive_signature(session.sign_survivors(attempt.survivors))
    attempt.signatures = attempt.coordinator.close_signatures()


def ignore_repeats(sites, allowed):
    """`check_sites` without the check for repeats."""
    for name in sites:
        if name not in allowed:
            raise RefusalError("unknown-site", name)


def test_site_listed_twice_is_refused_where_it_counts_twice():
    with refuses("duplicate"):
        repeat_last_site().run()


def test_site_listed_twice_would_still_show_its_key_twice(monkeypatch):
    for module in (binding, policy):
        monkeypatch.setattr(module, "check_sites", ignore_repeats)
    with refuses("duplicate"):
        repeat_last_site().run()


def test_site_listed_twice_would_make_three_pass_for_four(monkeypatch):
    for module in (binding, policy):
        monkeypatch.setattr(module, "check_sites", ignore_repeats)
    monkeypatch.setattr(binding, "check_keys_differ", lambda *_: None)
    attempt = repeat_last_site()
    total = attempt.run()
    assert len(attempt.sessions) == 3
    assert np.array_equal(total, sum(attempt.plain.values()))


class AnyOwnEntry(SiteSession):
    """Without the check that its own entry is what it sent."""

    def _check_advertisements(self, advertisements):
        self._own = next(one for one in advertisements if one.site == self._site)
        super()._check_advertisements(advertisements)


def test_exchanged_own_entry_would_still_not_be_signed():
    federation = WeakFederation(4, session=AnyOwnEntry)
    attempt = Round(federation, federation.make_context()).run_until("share")
    ads = list(attempt.listed.advertisements)
    ads[1] = replace(ads[1], mask_key=bytes(range(32)))
    with refuses("signature"):
        attempt.sessions[VICTIM].share_keys(AdvertisementList(tuple(ads)))


def test_own_entry_from_before_a_restart_would_pass_and_spoil_the_sum():
    """It is signed, for this very context: only the site knows that its keys are others now."""
    federation = WeakFederation(4, session=AnyOwnEntry)
    attempt = Round(federation, federation.make_context()).run_until("share")
    attempt.sessions[VICTIM] = federation.make_session(VICTIM, label="restarted")
    attempt.announce(VICTIM)
    attempt.share()
    with refuses("share"):  # the peers agreed with the old share key
        attempt.mask()


def test_phantom_that_was_never_heard_of_would_count_but_cannot_sign(monkeypatch):
    """Without the check that survivors are senders: five are named, four can sign."""
    federation = Federation(6)
    attempt = Round(federation, federation.make_context(), {"mask": ["site-005"]})
    attempt.run_until("sign")
    left = attempt.survivors.survivors[:4]
    named = SurvivorSet((*left, "zone"))
    with refuses("unknown-site"):
        attempt.sessions[VICTIM].sign_survivors(named)
    monkeypatch.setattr(binding, "check_sites", lambda *_: None)
    signed = tuple(attempt.sessions[name].sign_survivors(named) for name in left)
    with refuses("quorum"):
        attempt.sessions[VICTIM].unmask(SignatureList(signed))


# Shares


def reflect(attempt):
    """Give the victim its own packet for a peer back, in that peer's name."""
    packet = attempt.coordinator._packets[VICTIM][OTHER]
    delivery = attempt.deliveries[VICTIM]
    packets = tuple(packet if one.site == OTHER else one for one in delivery.packets)
    return replace(delivery, packets=packets)


def take_out(monkeypatch, module, *names):
    """Take the route's direction out of functions."""
    for name in names:
        original = getattr(module, name)

        def undirected(*arguments, _original=original, route, **more):
            return _original(*arguments, route=tuple(sorted(route)), **more)

        monkeypatch.setattr(module, name, undirected)


def test_share_reflected_to_its_dealer_is_refused():
    attempt = Round(Federation(4), Federation(4).make_context()).run_until("mask")
    with refuses("share"):
        attempt.sessions[VICTIM].mask(attempt.vectors[VICTIM], reflect(attempt))


def test_share_reflected_to_its_dealer_would_still_not_be_what_was_committed(monkeypatch):
    take_out(monkeypatch, site, "derive_share_key", "seal", "open_sealed")
    attempt = Round(Federation(4), Federation(4).make_context()).run_until("mask")
    with pytest.raises(RefusalError, match="not the one it committed to"):
        attempt.sessions[VICTIM].mask(attempt.vectors[VICTIM], reflect(attempt))


def test_share_reflected_to_its_dealer_would_make_it_reveal_its_own_key(monkeypatch):
    """One share for each peer said to have dropped out."""
    take_out(monkeypatch, site, "derive_share_key", "seal", "open_sealed")
    take_out(monkeypatch, binding, "commit_halves")
    attempt = Round(Federation(4), Federation(4).make_context()).run_until("mask")
    attempt.sessions[OTHER].mask(attempt.vectors[OTHER], attempt.deliveries[OTHER])  # goes nowhere
    held = {one.site: one.key_share for one in attempt.sessions[OTHER]._record.held}
    attempt.deliveries[VICTIM] = reflect(attempt)
    attempt.drops["mask"] = [OTHER]
    attempt.mask()
    attempt.sign()
    revealed = attempt.sessions[VICTIM].unmask(attempt.signatures).key_shares
    assert revealed == (RevealedShare(OTHER, held[VICTIM]),)


def test_shares_swapped_between_recipients_would_not_open_under_any_route(monkeypatch):
    """Defence in depth: each pair has a key of its own, whatever is bound besides."""
    take_out(monkeypatch, site, "derive_share_key", "seal", "open_sealed")
    take_out(monkeypatch, binding, "commit_halves")
    attempt = Round(Federation(4), Federation(4).make_context()).run_until("mask")
    mine, other = attempt.deliveries[VICTIM], attempt.deliveries[OTHER]
    swapped = (other.packets[0], *mine.packets[1:])
    with refuses("share"):
        attempt.sessions[VICTIM].mask(attempt.vectors[VICTIM], replace(mine, packets=swapped))


# Damaged messages


def flip_key(listed):
    """One bit of a peer's mask key."""
    ads = list(listed.advertisements)
    key = ads[2].mask_key
    ads[2] = replace(ads[2], mask_key=bytes([key[0] ^ 1]) + key[1:])
    return AdvertisementList(tuple(ads))


def test_flipped_bit_would_pass_unsigned_but_the_transcripts_differ_then(monkeypatch):
    attempt = Round(Federation(4), Federation(4).make_context()).run_until("share")
    listed = flip_key(attempt.listed)
    with refuses("signature"):
        attempt.sessions[VICTIM].share_keys(listed)
    monkeypatch.setattr(binding, "check_advertisement", lambda *_: None)
    dealt = attempt.sessions[VICTIM].share_keys(listed)
    with refuses("out-of-turn"):
        attempt.coordinator.receive_shares(dealt)


class Lenient(codec.Reader):
    """Without the check that as many bytes are left as are due."""

    def take(self, size, name):
        return super().take(min(size, len(self._data) - self._at), name)


def test_truncated_message_would_be_read_but_is_not_signed_then(monkeypatch):
    attempt = Round(Federation(4), Federation(4).make_context()).run_until("share")
    cut = encode(attempt.listed)[:-1]
    with pytest.raises(MessageError, match="truncated"):
        decode(cut, AdvertisementList)
    monkeypatch.setattr(codec, "Reader", Lenient)
    listed = decode(cut, AdvertisementList)
    assert len(listed.advertisements[-1].signature) == 63
    with refuses("signature"):
        attempt.sessions[VICTIM].share_keys(listed)


# Malicious sites, against the coordinator


class Credulous(CoordinatorSession):
    """Without the check of who signed a vector."""

    def _check_signature(self, site, signature, label, *parts):
        pass


class Uncounted(CoordinatorSession):
    """Without the check that a site sends one message a stage."""

    def _begin(self, stage, site, allowed, seen):
        pass


def run_with(kind, send):
    """Run a round whose coordinator lacks a check; `send` hands it the masked vectors."""
    federation = Federation(4)
    attempt = Round(federation, federation.make_context())
    attempt.coordinator = kind(attempt.context, federation.roster)
    attempt.run_until("mask")
    send(attempt.coordinator, mask_all(attempt))
    attempt.survivors = attempt.coordinator.close_vectors()
    attempt.sign()
    attempt.unmask()
    return np.array_equal(attempt.coordinator.finish(), attempt.compute_plain_sum())


def send_forged(coordinator, masked):
    """On the way one site's vector is exchanged for another."""
    for name, message in masked.items():
        forged = replace(message, words=bytes(256))
        coordinator.receive_vector(forged if name == LAST else message)


def send_twice(coordinator, masked):
    for message in (*masked.values(), masked[LAST]):
        coordinator.receive_vector(message)


def test_vector_exchanged_on_the_way_would_spoil_the_sum():
    assert not run_with(Credulous, send_forged)
    with refuses("signature"):
        run_with(CoordinatorSession, send_forged)


def test_vector_sent_twice_would_spoil_the_sum():
    assert not run_with(Uncounted, send_twice)
    with refuses("out-of-turn"):
        run_with(CoordinatorSession, send_twice)


def reveal_garbage(attempt):
    """One site reveals a share of another that was not dealt."""
    for name, session in attempt.sessions.items():
        answer = session.unmask(attempt.signatures)
        if name == "site-000":
            first, *others = answer.seed_shares[1:]
            garbage = RevealedShare(first.site, bytes(32))
            answer = replace(answer, seed_shares=(answer.seed_shares[0], garbage, *others))
        attempt.coordinator.receive_unmasking(answer)
    return attempt.coordinator.finish()


def test_garbage_share_would_have_its_innocent_dealer_blamed(monkeypatch):
    """The opened seed is checked, too; but who dealt it is not who spoiled it."""
    attempt = Round(Federation(4), Federation(4).make_context()).run_until("unmask")
    with refuses("share"):
        reveal_garbage(attempt)
    assert attempt.coordinator.faults[0].site == "site-000"
    attempt = Round(Federation(4), Federation(4).make_context()).run_until("unmask")
    monkeypatch.setattr(Openings, "_check", lambda *_: None)
    with pytest.raises(RoundVoidError) as caught:
        reveal_garbage(attempt)
    assert caught.value.culprits == (VICTIM,)

"""What a malicious site may send: the round goes on without it or is void, and it is named."""

from dataclasses import replace

import numpy as np
import pytest

from fedtrain.secagg import Fault, RefusalError, RoundVoidError, binding
from fedtrain.secagg.keys import derive_share_key, seal
from fedtrain.secagg.messages import RevealedShare
from tests.secagg.federation import Federation, Round

BAD = "site-003"


def start(stage, n=5, **changes):
    federation = Federation(n)
    return Round(federation, federation.make_context(**changes), {}).run_until(stage)


def refuses(reason):
    return pytest.raises(RefusalError, check=lambda error: error.reason == reason)


def mask_all(attempt):
    return {
        site: attempt.sessions[site].mask(attempt.vectors[site], attempt.deliveries[site])
        for site in attempt.deliveries
    }


def finish_all(attempt):
    attempt.sign()
    attempt.unmask()
    return attempt.coordinator.finish()


@pytest.mark.parametrize("length", [0, 63, 65])
def test_vector_of_wrong_length_drops_its_site_and_names_it(length):
    attempt = start("mask")
    masked = mask_all(attempt)
    for site, message in masked.items():
        if site != BAD:
            attempt.coordinator.receive_vector(message)
    with refuses("vector"):
        attempt.coordinator.receive_vector(replace(masked[BAD], words=bytes(4 * length)))
    attempt.survivors = attempt.coordinator.close_vectors()
    total = finish_all(attempt)
    assert attempt.coordinator.faults == [Fault(BAD, "vector")]
    assert np.array_equal(total, attempt.compute_plain_sum())
    assert BAD not in attempt.survivors.survivors


def test_vector_that_its_site_did_not_sign_is_refused():
    attempt = start("mask")
    masked = mask_all(attempt)
    with refuses("signature"):
        attempt.coordinator.receive_vector(replace(masked[BAD], words=bytes(256)))
    with refuses("signature"):
        attempt.coordinator.receive_vector(replace(masked["site-000"], site=BAD))


def test_shares_that_do_not_open_are_refused_by_their_recipient_who_names_the_dealer():
    attempt = start("share")
    for site, session in attempt.sessions.items():
        dealt = session.share_keys(attempt.listed)
        if site == BAD:
            garbage = replace(dealt.packets[0], ciphertext=bytes(80))
            dealt = replace(dealt, packets=(garbage, *dealt.packets[1:]))
        attempt.coordinator.receive_shares(dealt)
    attempt.deliveries = attempt.coordinator.close_shares()
    session, delivery = attempt.sessions["site-000"], attempt.deliveries["site-000"]
    with pytest.raises(RefusalError) as caught:
        session.mask(attempt.vectors["site-000"], delivery)
    error = caught.value
    attempt.coordinator.report_refusal("site-000", error.reason, error.suspect)
    assert attempt.coordinator.faults == [Fault(BAD, "share", "site-000")]
    attempt.drops["mask"] = ["site-000"]
    attempt.mask()
    assert np.array_equal(finish_all(attempt), attempt.compute_plain_sum())


def test_dealer_whose_shares_do_not_fit_together_makes_the_round_void_and_is_named(monkeypatch):
    attempt = start("share")
    for site, session in attempt.sessions.items():
        if site == BAD:
            session._secrets[0][:] = bytes(32)  # deals shares of another seed than it committed to
        attempt.coordinator.receive_shares(session.share_keys(attempt.listed))
    attempt.deliveries = attempt.coordinator.close_shares()
    attempt.mask()
    with pytest.raises(RoundVoidError) as caught:
        finish_all(attempt)
    assert (caught.value.reason, caught.value.culprits) == ("bad-dealer", (BAD,))


def test_dropped_dealer_with_a_false_key_is_named():
    attempt = start("share")
    for site, session in attempt.sessions.items():
        if site == BAD:
            session._secrets[1][:] = bytes(32)
        attempt.coordinator.receive_shares(session.share_keys(attempt.listed))
    attempt.deliveries = attempt.coordinator.close_shares()
    attempt.drops["mask"] = [BAD]
    attempt.mask()
    with pytest.raises(RoundVoidError) as caught:
        finish_all(attempt)
    assert caught.value.culprits == (BAD,)


@pytest.mark.parametrize("kind", ["seed_shares", "key_shares"])
def test_garbage_share_revealed_names_its_site_and_the_sum_is_exact(kind):
    federation = Federation(6)
    context = federation.make_context(threshold=4)
    federation = Federation(6, min_threshold_share=0.5)
    attempt = Round(federation, context, {"mask": ["site-005"]}).run_until("unmask")
    for site, session in attempt.sessions.items():
        if site == "site-005":
            continue
        answer = session.unmask(attempt.signatures)
        if site == BAD:
            shares = getattr(answer, kind)
            false = (RevealedShare(shares[0].site, bytes(32)), *shares[1:])
            with refuses("share"):
                attempt.coordinator.receive_unmasking(replace(answer, **{kind: false}))
        else:
            attempt.coordinator.receive_unmasking(answer)
    assert attempt.coordinator.faults == [Fault(BAD, "share")]
    assert np.array_equal(attempt.coordinator.finish(), attempt.compute_plain_sum())


def test_other_shares_revealed_than_due_are_refused():
    attempt = start("unmask")
    answer = attempt.sessions[BAD].unmask(attempt.signatures)
    for changes in (
        {"seed_shares": answer.seed_shares[1:]},
        {"key_shares": answer.seed_shares[:1]},
        {"seed_shares": answer.seed_shares + answer.seed_shares[:1]},
    ):
        with refuses("recipients"):
            attempt.coordinator.receive_unmasking(replace(answer, **changes))


def test_messages_of_other_rounds_are_refused_at_every_stage():
    attempt = start("share")
    coordinator, session = attempt.coordinator, attempt.sessions[BAD]
    dealt = session.share_keys(attempt.listed)
    with refuses("out-of-turn"):
        coordinator.receive_shares(replace(dealt, transcript=bytes(32)))
    with refuses("recipients"):
        coordinator.receive_shares(replace(dealt, packets=dealt.packets[1:]))
    attempt = start("unmask")
    answer = attempt.sessions[BAD].unmask(attempt.signatures)
    with refuses("out-of-turn"):
        attempt.coordinator.receive_unmasking(replace(answer, view=bytes(32)))


def test_vector_of_another_view_is_refused():
    attempt = start("mask")
    masked = mask_all(attempt)[BAD]
    with refuses("out-of-turn"):
        attempt.coordinator.receive_vector(replace(masked, view=bytes(32)))


def test_message_sent_twice_is_refused_without_harm():
    attempt = start("advertise")
    one = attempt.announce(BAD)
    attempt.coordinator.receive_advertisement(one)
    with refuses("out-of-turn"):
        attempt.coordinator.receive_advertisement(one)
    assert attempt.coordinator.faults == []


def test_stranger_is_refused():
    attempt = start("advertise")
    with refuses("unknown-site"):
        attempt.coordinator.receive_advertisement(replace(attempt.announce(BAD), site="sybil"))


def test_unsigned_advertisement_and_copied_key_are_refused():
    attempt = start("advertise")
    ad = attempt.announce("site-000")
    attempt.coordinator.receive_advertisement(ad)
    own = attempt.announce(BAD)
    with refuses("signature"):
        attempt.coordinator.receive_advertisement(replace(own, mask_key=ad.mask_key))
    copied = replace(own, mask_key=ad.mask_key)
    digest = binding.compute_context_digest(attempt.context)
    parts = binding.get_signed_parts(digest, copied)
    signature = attempt.federation.identities[BAD].sign(binding.ADVERTISEMENT, *parts)
    with refuses("duplicate"):
        attempt.coordinator.receive_advertisement(replace(copied, signature=signature))


def test_signature_of_another_set_is_refused():
    attempt = start("sign")
    signature = attempt.sessions[BAD].sign_survivors(attempt.survivors)
    with refuses("signature"):
        attempt.coordinator.receive_signature(replace(signature, site="site-000"))


def test_dealer_cannot_have_a_recipient_blamed_for_a_false_share():
    """A sealed share that is not the committed one is refused before it can be revealed."""
    attempt = start("share")
    session = attempt.sessions[BAD]
    for site, other in attempt.sessions.items():
        dealt = other.share_keys(attempt.listed)
        if site == BAD:
            dealt = reseal(session, dealt, recipient="site-000")
        attempt.coordinator.receive_shares(dealt)
    deliveries = attempt.coordinator.close_shares()
    with pytest.raises(RefusalError, match="not the one it committed to") as caught:
        attempt.sessions["site-000"].mask(attempt.vectors["site-000"], deliveries["site-000"])
    assert caught.value.suspect == BAD


def reseal(session, dealt, *, recipient):
    route = (dealt.site, recipient)
    bound = {"transcript": dealt.transcript, "route": route}
    key = derive_share_key(session._agreed[recipient], **bound)
    first, *others = dealt.packets
    assert first.site == recipient
    return replace(
        dealt, packets=(replace(first, ciphertext=seal(key, bytes(64), **bound)), *others)
    )

"""What a malicious coordinator may try, one test an attack; each ends in a refusal at the site.

`test_controls` and the tests named "would" take a check away: the attack then succeeds.
"""

import contextlib
from dataclasses import replace

import numpy as np
import pytest

from fedtrain.errors import ConfigError
from fedtrain.secagg import (
    Identity,
    RefusalError,
    RoundVoidError,
    SitePolicy,
    SiteSession,
    binding,
    make_roster,
    sign_roster,
    verify_roster,
)
from fedtrain.secagg.keys import (
    agree,
    compute_public_key,
    derive_pair_key,
    derive_share_key,
    load_private_key,
    open_sealed,
)
from fedtrain.secagg.masks import add_masks
from fedtrain.secagg.messages import (
    AdvertisementList,
    RosterEntry,
    ShareDelivery,
    SignatureList,
    SurvivorSet,
)
from fedtrain.secagg.openings import Openings
from fedtrain.secagg.roster import compute_roster_digest, verify_successor
from tests.secagg.federation import CONFIG, MODEL, ROOT, Federation, Round, name_sites

VICTIM, OTHER = "site-001", "site-002"


def start(stage, n=4, **changes):
    federation = Federation(n)
    return Round(federation, federation.make_context(**changes)).run_until(stage)


def refuses(reason):
    return pytest.raises(RefusalError, check=lambda error: error.reason == reason)


def announce(context, federation=None, **digests):
    federation = federation or Federation(4)
    own = {"config_digest": CONFIG, "model_digest": MODEL} | digests
    return federation.make_session(VICTIM).advertise(context, **own)


# Keys and roster


@pytest.mark.parametrize("field", ["mask_key", "share_key", "seed_commitment"])
def test_substituted_keys_are_refused(field):
    attempt = start("share")
    own = compute_public_key(bytes(range(32)))
    swapped = [
        replace(one, **{field: own}) if one.site == OTHER else one
        for one in attempt.listed.advertisements
    ]
    with refuses("signature"):
        attempt.sessions[VICTIM].share_keys(AdvertisementList(tuple(swapped)))


def test_substituted_keys_would_open_the_shares_if_unchecked(monkeypatch):
    monkeypatch.setattr(binding, "is_signed", lambda *_: True)
    attempt = start("share")
    listed = AdvertisementList(
        tuple(
            one
            if one.site == VICTIM
            else replace(one, share_key=compute_public_key(bytes([i] * 32)))
            for i, one in enumerate(attempt.listed.advertisements)
        )
    )
    dealt = attempt.sessions[VICTIM].share_keys(listed)
    transcript = binding.compute_transcript(attempt.context, listed)
    stolen = open_as_coordinator(listed, dealt, transcript, victim=VICTIM)
    assert len(stolen) == 3  # t - 1 of 4, and the coordinator's own sites add the rest


def open_as_coordinator(listed, dealt, transcript, *, victim):
    keys = {one.site: one.share_key for one in listed.advertisements}
    places = {one.site: i for i, one in enumerate(listed.advertisements)}
    opened = []
    for packet in dealt.packets:
        own = load_private_key(bytes([places[packet.site]] * 32))
        secret = agree(own, keys[victim], peer=victim)
        route = (victim, packet.site)
        key = derive_share_key(secret, transcript=transcript, route=route)
        opened.append(open_sealed(key, packet.ciphertext, transcript=transcript, route=route))
    return opened


def test_low_order_key_of_a_peer_is_refused():
    federation = Federation(4)
    attempt = Round(federation, federation.make_context()).run_until("share")
    digest = binding.compute_context_digest(attempt.context)
    ads = []
    for one in attempt.listed.advertisements:
        if one.site == OTHER:
            one = replace(one, share_key=bytes(32))
            parts = binding.get_signed_parts(digest, one)
            signature = federation.identities[OTHER].sign(binding.ADVERTISEMENT, *parts)
            one = replace(one, signature=signature)
        ads.append(one)
    with refuses("weak-key"):
        attempt.sessions[VICTIM].share_keys(AdvertisementList(tuple(ads)))


def test_keys_of_a_peer_copied_by_another_are_refused():
    federation = Federation(4)
    attempt = Round(federation, federation.make_context()).run_until("share")
    digest = binding.compute_context_digest(attempt.context)
    ads = {one.site: one for one in attempt.listed.advertisements}
    copied = replace(ads[OTHER], mask_key=ads["site-000"].mask_key)
    parts = binding.get_signed_parts(digest, copied)
    signature = federation.identities[OTHER].sign(binding.ADVERTISEMENT, *parts)
    ads[OTHER] = replace(copied, signature=signature)
    with refuses("duplicate"):
        attempt.sessions[VICTIM].share_keys(AdvertisementList(tuple(ads.values())))


def test_site_that_is_not_in_the_roster_is_refused():
    context = Federation(4).make_context(cohort=(*name_sites(4), "sybil"))
    with refuses("unknown-site"):
        announce(context)


def test_advertisement_of_a_site_outside_the_cohort_is_refused():
    federation = Federation(5)
    attempt = Round(federation, federation.make_context(cohort=name_sites(4))).run_until("share")
    extra = replace(attempt.listed.advertisements[0], site="site-004")
    with refuses("unknown-site"):
        attempt.sessions[VICTIM].share_keys(
            AdvertisementList((*attempt.listed.advertisements, extra))
        )


def test_roster_signed_by_another_root_is_refused():
    federation = Federation(4, root=Identity.from_seed(1, "other root"))
    with refuses("roster"):
        SitePolicy(ROOT.public_key, federation.roster)
    with refuses("roster"):
        verify_roster(federation.roster, ROOT.public_key)


def test_context_with_another_roster_is_refused():
    other = Federation(4, seed=1)
    digest = compute_roster_digest(other.roster)
    with refuses("context"):
        announce(Federation(4).make_context(roster_digest=digest))


@pytest.mark.parametrize(("name", "version"), [("test", 1), ("test", 0), ("other", 2)])
def test_roster_that_does_not_follow_the_pinned_one_is_refused(name, version):
    pinned = Federation(4).roster
    keys = {"site-000": ROOT.public_key}
    offered = sign_roster(make_roster(name, version, keys=keys), ROOT)
    with refuses("roster"):
        verify_successor(offered, ROOT.public_key, pinned=pinned)


def test_newer_roster_of_the_root_is_accepted():
    offered = sign_roster(make_roster("test", 2, keys={"a": ROOT.public_key}), ROOT)
    roster = verify_successor(offered, ROOT.public_key, pinned=Federation(4).roster)
    assert roster.entries == (RosterEntry("a", ROOT.public_key),)


def test_session_with_a_key_that_the_roster_does_not_list_is_refused():
    federation = Federation(4)
    federation.identities[VICTIM] = Identity.generate()
    with pytest.raises(ConfigError, match="not the roster's"):
        federation.make_session(VICTIM)


# Cohort and threshold


def test_cohort_of_two_is_refused():
    with refuses("cohort"):
        announce(Federation(4).make_context(cohort=("site-000", VICTIM)))


def test_cohort_below_the_sites_own_minimum_is_refused():
    federation = Federation(6)
    federation.policy = replace(federation.policy, min_cohort=5)
    with refuses("cohort"):
        announce(federation.make_context(cohort=name_sites(4)), federation)


def test_policy_below_three_sites_or_half_is_refused():
    policy = Federation(4).policy
    with pytest.raises(ConfigError, match="min_cohort = 2"):
        replace(policy, min_cohort=2)
    with pytest.raises(ConfigError, match=r"min_threshold_share = 0\.4"):
        replace(policy, min_threshold_share=0.4)


@pytest.mark.parametrize("threshold", [0, 1, 2, 4, 7])
def test_threshold_lowered_or_above_the_cohort_is_refused(threshold):
    with refuses("threshold" if threshold < 7 else "cohort"):
        announce(Federation(6).make_context(threshold=threshold), Federation(6))


def test_threshold_of_half_is_refused_by_every_policy():
    federation = Federation(6, min_threshold_share=0.5)
    with refuses("threshold"):
        announce(federation.make_context(threshold=3), federation)
    announce(federation.make_context(threshold=4), federation)


@pytest.mark.parametrize(("threshold", "refused"), [(112, True), (113, False)])
def test_threshold_that_corrupt_sites_could_meet_twice_is_refused_in_a_sparse_graph(
    threshold, refused
):
    """There a neighbourhood opens a secret: all rests on one survivor set, of 204, 20 corrupt."""
    policy = Federation(204, min_threshold_share=0.5).policy
    context = Federation(204).make_context(threshold=threshold)
    digests = {"config_digest": CONFIG, "model_digest": MODEL}
    with refuses("threshold") if refused else contextlib.nullcontext():
        policy.check_context(context, VICTIM, **digests)


def test_fewer_advertisements_than_the_threshold_are_refused():
    attempt = start("share", n=6)
    few = attempt.listed.advertisements[:4]
    with refuses("cohort"):
        attempt.sessions[VICTIM].share_keys(AdvertisementList(few))


def test_another_graph_than_the_policys_is_refused():
    with refuses("graph"):
        announce(Federation(4).make_context(neighbours=2))


# Different views (Pasquini et al. 2022)


@pytest.mark.parametrize("name", ["config_digest", "model_digest"])
def test_announced_digest_that_is_not_what_the_site_received_is_refused(name):
    with refuses("context"):
        announce(Federation(4).make_context(), **{name: bytes(32)})


@pytest.mark.parametrize("changes", [{"federation": "other"}, {"ring_bits": 8}, {"length": 0}])
def test_context_of_another_federation_or_ring_is_refused(changes):
    with refuses("context"):
        announce(Federation(4).make_context(**changes))


def test_different_models_are_noticed_by_every_peer():
    federation = Federation(4)
    context = federation.make_context()
    attempt = Round(federation, context)
    other = replace(context, model_digest=bytes(32))
    ads = [attempt.announce(site) for site in federation.sites if site != VICTIM]
    ads.insert(1, attempt.announce(VICTIM, other, model=bytes(32)))
    for site in federation.sites:
        with refuses("signature"):
            attempt.sessions[site].share_keys(AdvertisementList(tuple(ads)))


def test_different_cohorts_are_noticed_by_every_peer():
    federation = Federation(5)
    attempt = Round(federation, federation.make_context())
    smaller = federation.make_context(cohort=name_sites(4))
    ads = [attempt.announce(s, smaller if s == VICTIM else None) for s in federation.sites]
    with refuses("unknown-site"):
        attempt.sessions[VICTIM].share_keys(AdvertisementList(tuple(ads)))
    with refuses("signature"):
        attempt.sessions[OTHER].share_keys(AdvertisementList(tuple(ads)))


def test_masks_of_different_models_would_not_cancel_even_if_unnoticed(monkeypatch):
    monkeypatch.setattr(binding, "is_signed", lambda *_: True)
    federation = Federation(3)
    context = federation.make_context(length=4096)
    attempt = Round(federation, context)
    other = replace(context, model_digest=bytes(32))
    for site in federation.sites:
        attempt.announce(*((site, other, bytes(32)) if site == VICTIM else (site,)))
    keys = {site: session._secrets for site, session in attempt.sessions.items()}
    views = {s: binding.compute_context_digest(other if s == VICTIM else context) for s in keys}
    pair = [
        derive_pair_key(
            load_private_key(keys[a][1]),
            compute_public_key(keys[b][1]),
            view=views[a],
            site=a,
            peer=b,
        )
        for a, b in ((VICTIM, OTHER), (OTHER, VICTIM))
    ]
    left = np.zeros(4096, "<u4")
    add_masks(left, pair[:1], pair[1:])
    assert np.count_nonzero(left) > 4000


def test_different_senders_shown_are_noticed_before_anything_is_unmasked():
    attempt = start("mask", n=5)
    honest = attempt.deliveries[VICTIM]
    left = tuple(site for site in honest.senders if site != "site-004")
    packets = tuple(one for one in honest.packets if one.site != "site-004")
    attempt.sessions[VICTIM].mask(attempt.vectors[VICTIM], ShareDelivery(left, packets))
    attempt.sessions[OTHER].mask(attempt.vectors[OTHER], attempt.deliveries[OTHER])
    signatures = tuple(
        attempt.sessions[site].sign_survivors(SurvivorSet(left)) for site in (VICTIM, OTHER)
    )
    with refuses("signature"):
        attempt.sessions[OTHER].unmask(SignatureList(signatures))


# Replays and repetitions


def test_advertisements_of_an_old_round_are_refused():
    federation = Federation(4)
    old = Round(federation, federation.make_context()).run_until("share")
    new = Round(federation, federation.make_context(round=2), label=1).run_until("share")
    mixed = [
        old.listed.advertisements[i] if one.site == OTHER else one
        for i, one in enumerate(new.listed.advertisements)
    ]
    with refuses("signature"):
        new.sessions[VICTIM].share_keys(AdvertisementList(tuple(mixed)))


def test_shares_of_an_old_round_are_refused():
    federation = Federation(4)
    old = Round(federation, federation.make_context()).run_until("mask")
    new = Round(federation, federation.make_context(round=2), label=1).run_until("mask")
    with refuses("share"):
        new.sessions[VICTIM].mask(new.vectors[VICTIM], old.deliveries[VICTIM])


def test_signatures_of_an_old_round_are_refused():
    federation = Federation(4)
    old = Round(federation, federation.make_context()).run_until("unmask")
    new = Round(federation, federation.make_context(round=2), label=1).run_until("unmask")
    with refuses("signature"):
        new.sessions[VICTIM].unmask(old.signatures)


def test_round_before_one_that_was_masked_is_refused():
    federation = Federation(4)
    Round(federation, federation.make_context(round=5)).run_until("sign")
    with refuses("replay"):
        announce(federation.make_context(round=4), federation)


def test_attempt_before_one_that_was_masked_is_refused():
    federation = Federation(4)
    Round(federation, federation.make_context(attempt=2)).run_until("sign")
    with refuses("replay"):
        announce(federation.make_context(attempt=1), federation)


@pytest.mark.parametrize("stage", ["unmask", "finish"])
def test_round_run_again_with_one_site_fewer_is_refused(stage):
    federation = Federation(5)
    Round(federation, federation.make_context()).run_until(stage)
    fewer = federation.make_context(attempt=1, cohort=name_sites(4))
    for site in fewer.cohort:
        session = federation.make_session(site, label=1)
        with refuses("already-answered"):
            session.advertise(fewer, config_digest=CONFIG, model_digest=MODEL)


def test_round_run_again_would_reveal_one_update_if_unchecked(monkeypatch):
    federation = Federation(5)
    first = Round(federation, federation.make_context(ring_bits=32))
    total = first.run()
    monkeypatch.setattr(SiteSession, "_check_history", lambda *_: None)
    fewer = federation.make_context(attempt=1, cohort=name_sites(4))
    second = Round(federation, fewer, label=1)
    second.vectors = {site: first.plain[site].copy() for site in fewer.cohort}
    assert np.array_equal(total - second.run(), first.plain["site-004"])


def test_two_survivor_sets_for_one_round_are_refused():
    attempt = start("sign", n=6)
    session = attempt.sessions[VICTIM]
    first = session.sign_survivors(attempt.survivors)
    with refuses("already-answered"):
        session.sign_survivors(SurvivorSet(attempt.survivors.survivors[:5]))
    assert session.sign_survivors(attempt.survivors) == first


def test_both_shares_of_one_peer_are_never_revealed():
    attempt = start("unmask", n=6)
    session = attempt.sessions[VICTIM]
    answer = session.unmask(attempt.signatures)
    assert [one.site for one in answer.seed_shares] == list(attempt.survivors.survivors)
    assert answer.key_shares == ()
    with refuses("already-answered"):
        session.sign_survivors(SurvivorSet(attempt.survivors.survivors[:5]))
    assert session.unmask(SignatureList(())) == answer


def test_both_shares_would_reveal_the_update_if_unchecked():
    """With both secrets of a site its single vector is plain: why one answer a round is all."""
    attempt = start("sign", n=4)
    held = [attempt.sessions[s]._record.held for s in attempt.context.cohort if s != VICTIM]
    mine = [one for row in held for one in row if one.site == VICTIM]
    openings = Openings(attempt.context.cohort, {}, transcript=b"")
    others = [site for site in attempt.context.cohort if site != VICTIM]
    openings._shares["seed", VICTIM] = {
        s: one.seed_share for s, one in zip(others, mine, strict=True)
    }
    openings._shares["key", VICTIM] = {
        s: one.key_share for s, one in zip(others, mine, strict=True)
    }
    seed = openings.combine("seed", [VICTIM], threshold=3)[VICTIM]
    key = openings.combine("key", [VICTIM], threshold=3)[VICTIM]
    ads = {one.site: one for one in attempt.listed.advertisements}
    assert compute_public_key(key) == ads[VICTIM].mask_key
    digest = binding.compute_context_digest(attempt.context)
    assert binding.commit_seed(digest, VICTIM, seed) == ads[VICTIM].seed_commitment


def test_attempt_left_behind_for_another_is_not_answered():
    federation = Federation(4)
    first = Round(federation, federation.make_context()).run_until("sign")
    Round(federation, federation.make_context(attempt=1), label=1).run_until("sign")
    with refuses("already-answered"):
        first.sessions[VICTIM].sign_survivors(first.survivors)


# Lists


def test_cohort_with_a_site_twice_is_refused():
    cohort = ("site-000", VICTIM, VICTIM, OTHER)
    with refuses("duplicate"):
        announce(Federation(4).make_context(cohort=cohort))


def test_cohort_without_the_site_itself_is_refused():
    with refuses("unknown-site"):
        announce(Federation(4).make_context(cohort=("site-000", OTHER, "site-003")))


def test_own_identity_as_a_peer_is_refused():
    attempt = start("share")
    ads = list(attempt.listed.advertisements)
    own = ads[1]
    with refuses("duplicate"):
        attempt.sessions[VICTIM].share_keys(AdvertisementList((*ads[:2], own, *ads[2:])))
    with refuses("own-entry"):
        fake = replace(own, mask_key=bytes(range(32)))
        attempt.sessions[VICTIM].share_keys(AdvertisementList((ads[0], fake, *ads[2:])))


def test_own_share_as_a_peers_is_refused():
    attempt = start("mask")
    delivery = attempt.deliveries[VICTIM]
    packets = (replace(delivery.packets[0], site=VICTIM), *delivery.packets[1:])
    with refuses("recipients"):
        attempt.sessions[VICTIM].mask(attempt.vectors[VICTIM], replace(delivery, packets=packets))


def test_senders_without_the_site_itself_or_too_few_are_refused():
    attempt = start("mask", n=6)
    delivery = attempt.deliveries[VICTIM]
    session, vector = attempt.sessions[VICTIM], attempt.vectors[VICTIM]
    with refuses("own-entry"):
        session.mask(vector, replace(delivery, senders=delivery.senders[2:]))
    with refuses("cohort"):
        session.mask(vector, replace(delivery, senders=delivery.senders[:4]))


def test_survivors_without_the_site_itself_or_too_few_are_refused():
    attempt = start("sign", n=6)
    session, survivors = attempt.sessions[VICTIM], attempt.survivors.survivors
    with refuses("own-entry"):
        session.sign_survivors(SurvivorSet(survivors[2:]))
    with refuses("cohort"):
        session.sign_survivors(SurvivorSet(survivors[:4]))
    with refuses("unknown-site"):
        session.sign_survivors(SurvivorSet((*survivors, "zone")))


@pytest.mark.parametrize("count", [0, 4])
def test_fewer_signatures_than_the_threshold_are_refused(count):
    attempt = start("unmask", n=6)
    few = SignatureList(attempt.signatures.signatures[:count])
    with refuses("quorum"):
        attempt.sessions[VICTIM].unmask(few)
    assert attempt.sessions[VICTIM].stage == 4


# Shares


def test_shares_swapped_between_recipients_are_refused():
    attempt = start("mask")
    mine, other = attempt.deliveries[VICTIM], attempt.deliveries[OTHER]
    swapped = (replace(other.packets[0], site=mine.packets[0].site), *mine.packets[1:])
    with refuses("share"):
        attempt.sessions[VICTIM].mask(attempt.vectors[VICTIM], replace(mine, packets=swapped))


@pytest.mark.parametrize("field", ["ciphertext", "seed_commitment", "key_commitment"])
def test_share_with_one_bit_flipped_is_refused_and_its_dealer_named(field):
    attempt = start("mask")
    delivery = attempt.deliveries[VICTIM]
    data = getattr(delivery.packets[0], field)
    flipped = replace(delivery.packets[0], **{field: bytes([data[0] ^ 1]) + data[1:]})
    with pytest.raises(RefusalError) as caught:
        attempt.sessions[VICTIM].mask(
            attempt.vectors[VICTIM],
            replace(delivery, packets=(flipped, *delivery.packets[1:])),
        )
    assert (caught.value.reason, caught.value.suspect) == ("share", "site-000")


def test_refused_round_leaves_nothing_to_unmask():
    attempt = start("mask")
    session, store = attempt.sessions[VICTIM], attempt.federation.stores[VICTIM]
    with refuses("recipients"):
        session.mask(attempt.vectors[VICTIM], replace(attempt.deliveries[VICTIM], packets=()))
    assert store.load("run-1") is None
    assert np.array_equal(attempt.vectors[VICTIM], attempt.plain[VICTIM])


def test_coordinator_alone_cannot_remove_masks_below_the_threshold():
    attempt = start("unmask", n=6)
    for site in attempt.context.cohort[:4]:
        attempt.coordinator.receive_unmasking(attempt.sessions[site].unmask(attempt.signatures))
    with pytest.raises(RoundVoidError) as caught:
        attempt.coordinator.finish()
    assert caught.value.reason == "too-few-shares"

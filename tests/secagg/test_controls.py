"""The attacks of `test_attacks` with one check taken out: they succeed, so that the check matters.

Where another check stops the attack all the same, the test shows that too, and then takes out both.
"""

from dataclasses import replace

import numpy as np
import pytest

from fedtrain.secagg import (
    CoordinatorSession,
    Identity,
    RefusalError,
    SitePolicy,
    SiteSession,
    binding,
    make_roster,
    sign_roster,
)
from fedtrain.secagg.keys import derive_pair_key, derive_self_key, load_private_key
from fedtrain.secagg.masks import add_masks
from fedtrain.secagg.messages import (
    AdvertisementList,
    SignatureList,
    SurvivorSet,
)
from fedtrain.secagg.openings import Openings
from fedtrain.secagg.store import MASKED
from tests.secagg.federation import ROOT, Federation, Round, name_sites

VICTIM, OTHER, LAST = "site-001", "site-002", "site-003"


def refuses(reason):
    return pytest.raises(RefusalError, check=lambda error: error.reason == reason)


class WeakFederation(Federation):
    """Whose sites' sessions and policies lack a check."""

    def __init__(self, n=4, *, session=SiteSession, rules=SitePolicy, **minima):
        super().__init__(n)
        self._kind = session
        self.policy = rules(ROOT.public_key, self.roster, **minima)

    def make_session(self, site, **options):
        session = super().make_session(site, **options)
        session.__class__ = self._kind
        return session


class Greedy(CoordinatorSession):
    """A coordinator without scruples about how few sites a sum is over or what it is given."""

    def _end(self, stage, following, left):
        self._stage = following

    def _check_revealed(self, message):
        pass


def run_greedy(federation, context):
    attempt = Round(federation, context)
    attempt.coordinator = Greedy(context, federation.roster)
    return attempt, attempt.run()


def subtract_accomplices(attempt, total):
    """What the coordinator learns if all sites but the victim are its own."""
    for name in attempt.context.cohort:
        if name != VICTIM:
            total = total - attempt.plain[name]
    return total


# Roster


class AnyRoot(SitePolicy):
    """Without the check that the pinned root signed the roster."""

    def __post_init__(self):
        pass


class AnySite(SitePolicy):
    """Without the check that a site is in the roster."""

    strangers = {f"sybil-{i}": Identity.from_seed(0, f"sybil-{i}") for i in range(3)}

    def get_keys(self):
        return super().get_keys() | {name: one.public_key for name, one in self.strangers.items()}


def test_roster_of_another_root_would_make_the_victims_peers_the_coordinators():
    federation = WeakFederation(4)
    keys = {name: Identity.from_seed(1, name) for name in federation.sites}
    keys[VICTIM] = federation.identities[VICTIM]
    public = {name: one.public_key for name, one in keys.items()}
    forged = sign_roster(make_roster("test", 1, keys=public), Identity.from_seed(1, "root"))
    with refuses("roster"):
        SitePolicy(ROOT.public_key, forged)
    federation.identities, federation.roster = keys, forged
    federation.policy = AnyRoot(ROOT.public_key, forged)
    attempt = Round(federation, federation.make_context())
    total = attempt.run()
    assert np.array_equal(subtract_accomplices(attempt, total), attempt.plain[VICTIM])


def test_sites_that_are_not_in_the_roster_would_be_the_victims_only_peers():
    federation = WeakFederation(4, rules=AnySite)
    federation.identities |= AnySite.strangers
    federation.stores |= dict.fromkeys(AnySite.strangers, federation.stores[OTHER])
    context = federation.make_context(cohort=(VICTIM, *sorted(AnySite.strangers)))
    attempt = Round(federation, context)
    for name in AnySite.strangers:
        federation.stores[name] = type(federation.stores[OTHER])()
        attempt.sessions[name] = federation.make_session(name)
    attempt.coordinator._roster_keys = federation.policy.get_keys()
    total = attempt.run()
    assert np.array_equal(subtract_accomplices(attempt, total), attempt.plain[VICTIM])


# Cohort and threshold


class AnyCohort(SitePolicy):
    """Without the check that enough sites are left."""

    def check_remaining(self, remaining, context):
        pass


class AnyThreshold(SitePolicy):
    """Without the check of the threshold."""

    def _check_threshold(self, context):
        pass


def test_cohort_below_the_minimum_would_be_the_victim_alone():
    federation = WeakFederation(4, rules=AnyCohort)
    attempt, total = run_greedy(federation, federation.make_context(cohort=(VICTIM,)))
    assert np.array_equal(total, attempt.plain[VICTIM])


def test_survivors_below_the_minimum_would_be_the_victim_and_an_accomplice():
    """Without the minimum the threshold still holds; with the threshold at two it is no help."""
    federation = WeakFederation(3, rules=AnyCohort, min_threshold_share=0.5)
    context = federation.make_context(threshold=2)
    attempt = Round(federation, context, {"mask": ["site-000"]})
    attempt.coordinator = Greedy(context, federation.roster)
    total = attempt.run()
    assert np.array_equal(total - attempt.plain[OTHER], attempt.plain[VICTIM])


def test_threshold_of_half_would_open_both_secrets_of_every_site():
    """Two halves are told that the other half dropped out; each signs and reveals once."""
    federation = WeakFederation(6, rules=AnyThreshold)
    context = federation.make_context(threshold=3)
    attempt = Round(federation, context).run_until("mask")
    masked = mask_all(attempt)
    openings = make_openings(attempt)
    for half in (context.cohort[:3], context.cohort[3:]):
        signatures = [attempt.sessions[name].sign_survivors(SurvivorSet(half)) for name in half]
        for name in half:
            openings.add(attempt.sessions[name].unmask(SignatureList(tuple(signatures))))
    for name in context.cohort:
        opened = open_vector(attempt, masked[name], openings)
        assert np.array_equal(opened, attempt.plain[name])


def mask_all(attempt):
    return {
        name: attempt.sessions[name].mask(attempt.vectors[name], attempt.deliveries[name])
        for name in attempt.deliveries
    }


def make_openings(attempt):
    coordinator = attempt.coordinator
    return Openings(
        attempt.context.cohort,
        coordinator._commitments,
        transcript=coordinator._transcript_digest,
    )


def open_vector(attempt, masked, openings):
    """Remove all masks of one site's vector, with both of its secrets."""
    name, view = masked.site, masked.view
    threshold = attempt.context.threshold
    seed = openings.combine("seed", [name], threshold=threshold)[name]
    key = load_private_key(openings.combine("key", [name], threshold=threshold)[name])
    added, subtracted = [derive_self_key(seed, view=view, site=name)], []
    for peer, one in attempt.coordinator._peers.items():
        if peer != name:
            mask = derive_pair_key(key, one.mask_key, view=view, site=name, peer=peer)
            (added if name < peer else subtracted).append(mask)
    vector = np.frombuffer(masked.words, "<u4").copy()
    add_masks(vector, subtracted, added)
    return vector


# One survivor set


class Unsigned(SiteSession):
    """Without the check that the threshold signed the same survivor set."""

    def _check_signatures(self, signatures):
        pass


def name_sets(cohort):
    """Nine survivors for each of 12 sites: eight in all of them, each other one in three."""
    core, others = cohort[:8], cohort[8:]
    sets = {name: (*core, others[i // 2]) for i, name in enumerate(core)}
    return core, sets | {name: (*core, name) for name in others}


def reveal_different_sets(attempt):
    """Show every site a survivor set of its own, and add what it reveals to the coordinator's."""
    coordinator = attempt.coordinator = Greedy(attempt.context, attempt.federation.roster)
    attempt.run_until("mask")
    core, sets = name_sets(attempt.context.cohort)
    for name, masked in mask_all(attempt).items():
        if name in core:
            coordinator.receive_vector(masked)
    attempt.survivors = coordinator.close_vectors()
    for name, survivors in sets.items():
        offered = SurvivorSet(tuple(sorted(survivors)))
        coordinator._signatures[name] = attempt.sessions[name].sign_survivors(offered)
    coordinator.close_signatures()
    for name in sets:
        own = SignatureList((coordinator._signatures[name],))
        coordinator.receive_unmasking(attempt.sessions[name].unmask(own))


def test_survivor_sets_that_differ_would_reveal_a_sum_below_the_threshold():
    """Each site demands nine survivors and is shown nine; the sum is over eight."""
    federation = WeakFederation(12, session=Unsigned)
    attempt = Round(federation, federation.make_context())
    assert attempt.context.threshold == 9
    reveal_different_sets(attempt)
    total = attempt.coordinator.finish()
    assert len(attempt.survivors.survivors) == 8
    assert np.array_equal(total, attempt.compute_plain_sum())


def test_survivor_sets_that_differ_are_refused():
    federation = Federation(12)
    attempt = Round(federation, federation.make_context())
    with refuses("quorum"):
        reveal_different_sets(attempt)


class Forgetful(SiteSession):
    """Without the memory that a survivor set was signed."""

    def sign_survivors(self, offered):
        if self.stage == MASKED:
            self._masked = self._record
        self._commit(self._masked)
        return super().sign_survivors(offered)


def finish_with(attempt, masked, survivors):
    """Finish a round as if only some of its vectors had come."""
    coordinator = CoordinatorSession(attempt.context, attempt.federation.roster)
    for one in attempt.listed.advertisements:
        coordinator.receive_advertisement(one)
    coordinator.close_advertisements()
    for dealt in attempt.dealt:
        coordinator.receive_shares(dealt)
    coordinator.close_shares()
    for name in survivors:
        coordinator.receive_vector(masked[name])
    attempt.coordinator, attempt.survivors = coordinator, coordinator.close_vectors()
    attempt.sign()
    attempt.unmask()
    return coordinator.finish()


def subtract_survivor_sets(federation):
    """Ask for the sum of all sites, then of all but the last, in one round."""
    attempt = Round(federation, federation.make_context()).run_until("share")
    attempt.dealt = [one.share_keys(attempt.listed) for one in attempt.sessions.values()]
    for dealt in attempt.dealt:
        attempt.coordinator.receive_shares(dealt)
    attempt.deliveries = attempt.coordinator.close_shares()
    masked = mask_all(attempt)
    total = finish_with(attempt, masked, federation.sites)
    return attempt, total - finish_with(attempt, masked, federation.sites[:-1])


def test_two_survivor_sets_would_reveal_one_update_if_the_first_was_forgotten():
    attempt, difference = subtract_survivor_sets(WeakFederation(6, session=Forgetful))
    assert np.array_equal(difference, attempt.plain["site-005"])


def test_two_survivor_sets_are_refused():
    with refuses("already-answered"):
        subtract_survivor_sets(Federation(6))


# Old rounds


def show_old_keys(federation):
    """The keys of round 1 of a peer, in round 2."""
    old = Round(federation, federation.make_context()).run_until("share")
    new = Round(federation, federation.make_context(round=2), label=1).run_until("share")
    ads = [
        old.listed.advertisements[i] if one.site == OTHER else one
        for i, one in enumerate(new.listed.advertisements)
    ]
    return new, AdvertisementList(tuple(ads))


def test_keys_of_an_old_round_would_be_used_again_but_peers_do_not_open_what_is_dealt(monkeypatch):
    """Without the signature over the context; the transcript in every share key stops it then."""
    new, listed = show_old_keys(Federation(4))
    with refuses("signature"):
        new.sessions[VICTIM].share_keys(listed)
    monkeypatch.setattr(binding, "check_advertisement", lambda *_: None)
    dealt = new.sessions[VICTIM].share_keys(listed)
    new.coordinator.receive_shares(replace(dealt, transcript=new.coordinator._transcript_digest))
    for name in sorted(set(new.sessions) - {VICTIM}):
        new.coordinator.receive_shares(new.sessions[name].share_keys(new.listed))
    deliveries = new.coordinator.close_shares()
    with refuses("share"):
        new.sessions[LAST].mask(new.vectors[LAST], deliveries[LAST])


class NoHistory(SiteSession):
    """Without the record of the run."""

    def _check_history(self, context):
        pass


def test_old_round_run_again_with_one_site_fewer_would_reveal_its_update():
    federation = WeakFederation(5, session=NoHistory)
    first = Round(federation, federation.make_context(round=5))
    total = first.run()
    Round(federation, federation.make_context(round=6), label=1).run()
    fewer = federation.make_context(round=5, cohort=name_sites(4))
    again = Round(federation, fewer, label=2)
    again.vectors = {name: first.plain[name].copy() for name in fewer.cohort}
    assert np.array_equal(total - again.run(), first.plain["site-004"])


def test_old_round_run_again_with_one_site_fewer_is_refused():
    federation = Federation(5)
    Round(federation, federation.make_context(round=5)).run()
    Round(federation, federation.make_context(round=6), label=1).run()
    with refuses("replay"):
        Round(federation, federation.make_context(round=5, cohort=name_sites(4)), label=2).run()

"""A simulation's identities: the same for a seed, and marked as what they are."""

from fedtrain.config import SecureAggregationSection
from fedtrain.secagg import decode, simulated, verify_roster
from fedtrain.secagg.messages import SignedRoster
from fedtrain.secagg.roster import get_keys

SITES = ("a", "b", "c")


def test_seed_gives_identities_that_its_roster_lists():
    roster = verify_roster(
        simulated.make_signed_roster(1, SITES), simulated.make_root(1).public_key
    )
    assert get_keys(roster) == {s: simulated.make_identity(1, s).public_key for s in SITES}
    assert roster == simulated.make_signed_roster(1, SITES).roster


def test_other_seed_gives_other_keys():
    keys = {simulated.make_identity(seed, "a").public_key for seed in (1, 2)}
    assert len(keys | {simulated.make_root(1).public_key}) == 3


def test_policy_has_the_sections_minima():
    section = SecureAggregationSection(min_cohort=5, dropout_share=0.2, corrupt_share=0.05)
    policy = simulated.make_policy(1, SITES, section)
    assert (policy.min_cohort, policy.dropout_share, policy.corrupt_share) == (5, 0.2, 0.05)


def test_roster_of_a_simulation_says_what_it_is():
    roster = simulated.make_pinned_roster(1, SITES)
    described = simulated.describe_roster(roster)
    assert described["simulated"] is True
    assert roster.signed.roster.federation.endswith("simulated")
    assert decode(bytes.fromhex(described["roster"]), SignedRoster) == roster.signed


def test_pinned_roster_names_its_sites_in_order():
    assert simulated.make_pinned_roster(0, ["berta", "anna"]).sites == ("anna", "berta")

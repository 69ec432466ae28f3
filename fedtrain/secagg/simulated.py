"""Identities, root and roster of a simulation: made from the run's seed, and secret to nobody.

A deployed site has its own key and a roster that the federation's root signed; here whoever knows
the seed has them all. Everything that is made here says so: the federation's name ends in
"simulated".
"""

from collections.abc import Sequence
from typing import Any, Final

from fedtrain.config import SecureAggregationSection
from fedtrain.secagg.codec import encode
from fedtrain.secagg.messages import SignedRoster
from fedtrain.secagg.policy import SitePolicy
from fedtrain.secagg.roster import Identity, PinnedRoster, make_roster, sign_roster

FEDERATION: Final = "fedtrain/simulated"


def make_identity(seed: int, site: str) -> Identity:
    """Return a simulated site's identity."""
    return Identity.from_seed(seed, "site", site)


def make_root(seed: int) -> Identity:
    """Return the simulated federation's root."""
    return Identity.from_seed(seed, "root")


def make_signed_roster(seed: int, sites: Sequence[str]) -> SignedRoster:
    """Return the simulated federation's roster."""
    keys = {site: make_identity(seed, site).public_key for site in sites}
    return sign_roster(make_roster(FEDERATION, 1, keys=keys), make_root(seed))


def make_policy(seed: int, sites: Sequence[str], section: SecureAggregationSection) -> SitePolicy:
    """Return the policy that every simulated site has."""
    return SitePolicy(
        root_public_key=make_root(seed).public_key,
        roster=make_signed_roster(seed, sites),
        min_cohort=section.min_cohort,
        dropout_share=section.dropout_share,
        corrupt_share=section.corrupt_share,
    )


def make_pinned_roster(seed: int, sites: Sequence[str]) -> PinnedRoster:
    """Return the simulated federation's roster with its root."""
    return PinnedRoster(make_signed_roster(seed, sites), make_root(seed).public_key, simulated=True)


def describe_roster(roster: PinnedRoster) -> dict[str, Any]:
    """Return what `roster.json` of a run directory holds."""
    return {
        "simulated": roster.simulated,
        "root_public_key": roster.root_public_key.hex(),
        "roster": encode(roster.signed).hex(),
        "sites": {entry.site: entry.public_key.hex() for entry in roster.signed.roster.entries},
    }

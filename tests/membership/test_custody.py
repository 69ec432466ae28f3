"""A site's folder in custody takes request, kit and memberships beside what it holds already."""

import pytest

from clients.custody import create_custody, open_custody
from fedtrain.config import Config
from fedtrain.membership.adoption import adopt_membership
from fedtrain.membership.federation import load_federation, revoke
from fedtrain.membership.kits import install_kit
from fedtrain.secagg import RefusalError
from fedtrain.secagg.messages import RoundContext
from fedtrain.secagg.roster import compute_roster_digest
from tests.membership.members import NOW, Federation


@pytest.fixture
def federation(tmp_path):
    """Return a federation of two sites, of which `ward` has joined."""
    made = Federation(tmp_path)
    create_custody(tmp_path / "ward", "ward")
    made.approve("alpha")
    install_kit(tmp_path / "ward", made.approve("ward"), now=NOW)
    return made


def find_roster(federation, context):
    return open_custody(federation.path / "ward").load_policy(Config(), context).roster


def make_context(roster):
    return RoundContext(
        federation="heart",
        run="run",
        round=1,
        attempt=0,
        roster_digest=compute_roster_digest(roster),
        config_digest=bytes(32),
        model_digest=bytes(32),
        cohort=("alpha", "ward"),
        threshold=2,
        length=1,
        ring_bits=32,
        neighbours=0,
    )


def test_site_in_custody_joins_with_the_identity_that_it_has(federation):
    custody = open_custody(federation.path / "ward")
    entry = load_federation(federation.root).membership.entries[-1]
    assert (entry.name, entry.public_key) == ("ward", custody.identity.public_key)


def test_secure_sum_takes_the_roster_that_its_run_began_with_while_its_sites_belong(federation):
    began = load_federation(federation.root).membership.roster
    adopt_membership(federation.path / "ward", federation.approve("beta").signed)
    assert find_roster(federation, make_context(began)) == began


def test_secure_sum_with_a_site_that_was_revoked_since_is_refused(federation):
    began = load_federation(federation.root).membership.roster
    adopt_membership(federation.path / "ward", revoke(federation.root, "alpha", now=NOW))
    with pytest.raises(RefusalError):
        find_roster(federation, make_context(began))

"""A newer membership takes the pinned one's place, at every member, whoever brought it."""

import os
import signal
from multiprocessing import get_context

import pytest

from fedtrain.errors import SiteError
from fedtrain.membership.adoption import adopt_membership
from fedtrain.membership.faults import MembershipError
from fedtrain.membership.federation import load_federation, revoke
from fedtrain.membership.member import load_member
from fedtrain.membership.membership import find_member
from fedtrain.membership.requests import create_request
from fedtrain.secagg.files import load_root_key, load_roster
from tests.membership.members import NOW, Federation, full_disk

STEPS = ("ROSTER", "roster.bin", "membership.bin")


@pytest.fixture
def federation(tmp_path):
    return Federation(tmp_path)


@pytest.fixture
def folder(federation):
    """Return the folder of a site that joined first and saw nothing since."""
    return federation.join("ward")


def load_pinned_roster(folder):
    return load_roster(folder / "roster.bin", load_root_key(folder / "root.pub"))


def test_newer_membership_is_pinned_with_its_roster(federation, folder):
    signed = federation.approve("alpha").signed
    adopt_membership(folder, signed)
    assert load_member(folder).signed == signed
    assert load_pinned_roster(folder) == signed.membership.roster


def test_every_roster_that_was_pinned_is_kept(federation, folder):
    for name in ("alpha", "beta"):
        adopt_membership(folder, federation.approve(name).signed)
    kept = {
        load_roster(path, load_root_key(folder / "root.pub")).roster.version
        for path in (folder / "rosters").iterdir()
    }
    assert kept == {2, 3, 4}


def test_coordinator_adopts_without_rosters(federation):
    folder = federation.join("co", "coordinator")
    adopt_membership(folder, federation.approve("alpha").signed)
    assert load_member(folder).signed.membership.version == 3
    assert not (folder / "rosters").exists()


def test_keys_and_certificate_are_not_touched(federation, folder):
    names = ("identity.key", "tls.key", "tls.crt", "root.pub", "ca.crt", "request.bin")
    before = [(folder / name).read_bytes() for name in names]
    adopt_membership(folder, federation.approve("alpha").signed)
    assert [(folder / name).read_bytes() for name in names] == before


@pytest.mark.parametrize("version", ["older", "the same"])
def test_membership_that_is_not_newer_is_refused(federation, folder, version):
    old = load_federation(federation.root)
    new = federation.approve("alpha").signed
    adopt_membership(folder, new)
    with pytest.raises(MembershipError) as caught:
        adopt_membership(folder, old if version == "older" else new)
    assert caught.value.reason == "older"
    assert load_member(folder).signed == new


def test_two_memberships_of_one_version_are_a_conflict(federation, folder):
    """What a root does that was restored from a backup."""
    backup = (federation.root / "membership.bin").read_bytes()
    adopt_membership(folder, federation.approve("alpha").signed)
    (federation.root / "membership.bin").write_bytes(backup)
    with pytest.raises(MembershipError, match="ask the root") as caught:
        adopt_membership(folder, federation.approve("beta").signed)
    assert caught.value.reason == "conflict"


def test_membership_of_another_root_is_refused(federation, folder, tmp_path):
    (tmp_path / "b").mkdir()
    other = Federation(tmp_path / "b")
    for name in ("a", "b", "c"):
        signed = other.approve(name).signed
    with pytest.raises(MembershipError, match="not signed by the pinned root"):
        adopt_membership(folder, signed)
    assert load_member(folder).signed == load_federation(federation.root)


def test_revoked_member_learns_that_it_is(federation, folder):
    adopt_membership(folder, revoke(federation.root, "ward", now=NOW))
    member = load_member(folder)
    assert member.entry is None
    assert find_member(member.signed.membership, "ward") is None


def test_renewed_member_learns_of_its_own_entry_before_its_kit(federation, folder):
    signed = federation.approve("ward").signed
    adopt_membership(folder, signed)
    assert load_member(folder).entry == signed.membership.entries[0]


def test_folder_that_has_not_joined_adopts_nothing(federation):
    create_request(federation.path / "new", "new", "site")
    with pytest.raises(SiteError, match="has joined no federation"):
        adopt_membership(federation.path / "new", load_federation(federation.root))


def adopt_until(folder, signed, step):
    def kill(name):
        if name == step or (step == "ROSTER" and len(name) == 68):
            os.kill(os.getpid(), signal.SIGKILL)

    adopt_membership(folder, signed, on_step=kill)


@pytest.mark.parametrize("step", STEPS)
def test_adoption_that_was_killed_leaves_one_whole_membership_and_is_completed(
    federation, folder, step
):
    old = load_federation(federation.root)
    signed = federation.approve("alpha").signed
    process = get_context("fork").Process(target=adopt_until, args=(folder, signed, step))
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    is_done = step == STEPS[-1]
    assert load_member(folder).signed == (signed if is_done else old)
    if not is_done:
        adopt_membership(folder, signed)
    assert load_pinned_roster(folder) == signed.membership.roster
    assert load_member(folder).signed == signed


def test_disk_full_is_one_line_and_leaves_the_pinned_membership(federation, folder):
    old = load_federation(federation.root)
    for name in ("alpha", "beta", "gamma"):
        signed = federation.approve(name).signed
    with full_disk(500), pytest.raises(SiteError, match="free space") as caught:
        adopt_membership(folder, signed)
    assert "\n" not in str(caught.value)
    assert load_member(folder).signed == old
    adopt_membership(folder, signed)
    assert load_member(folder).signed == signed


def adopt_unless_older(folder, signed):
    try:
        adopt_membership(folder, signed)
    except MembershipError as error:
        if error.reason != "older":
            raise


def test_processes_that_adopt_at_once_end_with_the_newest(federation, folder):
    versions = [federation.approve(name).signed for name in "abcdef"]
    context = get_context("fork")
    processes = [context.Process(target=adopt_unless_older, args=(folder, one)) for one in versions]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0] * len(processes)
    assert load_member(folder).signed == versions[-1]
    assert load_pinned_roster(folder) == versions[-1].membership.roster

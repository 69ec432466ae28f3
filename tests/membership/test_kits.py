"""A kit is installed where it fits the folder's own keys, wholly, or again after a crash."""

import os
import signal
import stat
from dataclasses import replace
from multiprocessing import get_context

import pytest

from fedtrain.errors import SiteError
from fedtrain.membership.adoption import adopt_membership
from fedtrain.membership.faults import MembershipError
from fedtrain.membership.federation import approve, load_federation, revoke
from fedtrain.membership.kits import install_kit, load_kit, save_kit
from fedtrain.membership.member import load_member
from fedtrain.membership.requests import compute_root_fingerprint, create_request
from fedtrain.secagg.files import load_root_key, load_roster
from fedtrain.secagg.roster import compute_roster_digest
from tests.membership.members import NOW, Federation, full_disk

FIRST = ("root.pub", "ca.crt", "tls.crt", "ROSTER", "roster.bin", "membership.bin")
RENEWAL = ("ca.crt", "tls.key", "tls.crt", "ROSTER", "roster.bin", "membership.bin")


@pytest.fixture
def federation(tmp_path):
    return Federation(tmp_path)


def read_all(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_kit_is_read_back(federation, tmp_path):
    kit = federation.approve("ward")
    save_kit(tmp_path / "kit", kit)
    assert load_kit(tmp_path / "kit") == kit


def test_site_that_joined_knows_who_it_is(federation):
    member = load_member(federation.join("ward"))
    assert (member.name, member.role) == ("ward", "site")
    assert member.signed == load_federation(federation.root)
    assert member.entry.public_key == member.signed.membership.entries[0].public_key


def test_site_pins_the_roster_under_its_digest_too(federation):
    folder = federation.join("ward")
    roster = load_roster(folder / "roster.bin", load_root_key(folder / "root.pub"))
    kept = folder / "rosters" / f"{compute_roster_digest(roster).hex()}.bin"
    assert kept.read_bytes() == (folder / "roster.bin").read_bytes()


@pytest.mark.parametrize("role", ["coordinator", "admin", "researcher", "auditor"])
def test_others_pin_no_roster(federation, role):
    folder = federation.join("x", role)
    assert not (folder / "roster.bin").exists()
    assert load_member(folder).role == role


def test_every_file_of_a_member_is_for_its_owner_alone(federation):
    folder = federation.join("ward")
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.rglob("*")]}
    assert all(mode == (0o700 if path.is_dir() else 0o600) for path, mode in modes.items())


def test_private_keys_never_leave_the_member_s_folder(federation):
    folder = federation.join("ward")
    secrets = [(folder / name).read_bytes().splitlines()[1] for name in ("identity.key", "tls.key")]
    handed = b"".join(read_all(federation.root).values()) + (folder / "request.bin").read_bytes()
    assert not any(secret in handed for secret in secrets)


def test_fingerprint_of_the_root_is_compared_before_anything_is_pinned(federation, tmp_path):
    (tmp_path / "b").mkdir()
    other = Federation(tmp_path / "b")
    create_request(tmp_path / "ward", "ward", "site")
    kit = federation.approve("ward")
    expected = compute_root_fingerprint(load_root_key(other.root / "root.pub"))
    with pytest.raises(MembershipError, match="do not use this kit") as caught:
        install_kit(tmp_path / "ward", kit, root_fingerprint=expected, now=NOW)
    assert caught.value.reason == "root"
    assert not (tmp_path / "ward" / "root.pub").exists()
    install_kit(
        tmp_path / "ward",
        kit,
        root_fingerprint=compute_root_fingerprint(kit.root_public_key).upper(),
        now=NOW,
    )


def test_kit_of_another_root_never_replaces_the_pinned_one(federation, tmp_path):
    folder = federation.join("ward")
    (tmp_path / "b").mkdir()
    other = Federation(tmp_path / "b")
    before = read_all(folder)
    kit = approve(other.root, create_request(folder, "ward", "site"), now=NOW)
    with pytest.raises(MembershipError, match="comes from another root"):
        install_kit(folder, kit, now=NOW)
    after = read_all(folder)
    assert {name for name in after if after[name] != before.get(name)} == {
        *("request.bin", "tls.key.next")
    }


def test_kit_for_another_member_is_refused(federation):
    kit = federation.approve("alpha")
    create_request(federation.path / "ward", "ward", "site")
    with pytest.raises(MembershipError, match="ask its root for this member's own kit"):
        install_kit(federation.path / "ward", kit, now=NOW)


def test_kit_for_another_key_is_refused(federation):
    kit = federation.approve("ward")
    create_request(federation.path / "b", "ward", "site")
    with pytest.raises(MembershipError, match="another identity") as caught:
        install_kit(federation.path / "b", kit, now=NOW)
    assert caught.value.reason == "own-key"


def test_kit_in_a_folder_without_a_request_is_refused(federation, tmp_path):
    kit = federation.approve("ward")
    (tmp_path / "empty").mkdir(mode=0o700)
    with pytest.raises(SiteError, match=r"request.bin cannot be read"):
        install_kit(tmp_path / "empty", kit, now=NOW)
    assert not list((tmp_path / "empty").iterdir())


def test_file_that_is_no_kit_is_refused(federation, tmp_path):
    (tmp_path / "kit").write_bytes(b"kit")
    with pytest.raises(MembershipError, match=r"kit is no kit .*ask the federation's root"):
        load_kit(tmp_path / "kit")


def test_renewal_installs_the_new_key_with_its_certificate(federation):
    folder = federation.join("ward")
    old = (folder / "tls.key").read_bytes()
    new = create_request(folder, "ward", "site")
    new_key = (folder / "tls.key.next").read_bytes()
    install_kit(folder, approve(federation.root, new, now=NOW), now=NOW)
    assert (folder / "tls.key").read_bytes() == new_key != old
    assert not (folder / "tls.key.next").exists()
    assert load_member(folder).signed.membership.version == 3


def test_old_kit_after_a_renewal_is_refused(federation):
    old = federation.approve("ward")
    install_kit(federation.path / "ward", old, now=NOW)
    install_kit(federation.path / "ward", federation.approve("ward"), now=NOW)
    before = read_all(federation.path / "ward")
    with pytest.raises(MembershipError, match="certificate is not for") as caught:
        install_kit(federation.path / "ward", old, now=NOW)
    assert caught.value.reason == "certificate"
    assert read_all(federation.path / "ward") == before


def test_kit_older_than_the_pinned_membership_brings_its_certificate_alone(federation):
    folder = federation.join("ward")
    kit = federation.approve("ward")
    newer = federation.approve("alpha").signed
    adopt_membership(folder, newer)
    assert install_kit(folder, kit, now=NOW) == newer
    assert load_member(folder).signed == newer


def test_kit_whose_membership_contradicts_the_pinned_one_is_refused(federation):
    """What a root does that was restored from a backup."""
    folder = federation.join("ward")
    backup = (federation.root / "membership.bin").read_bytes()
    adopt_membership(folder, federation.approve("alpha").signed)
    (federation.root / "membership.bin").write_bytes(backup)
    with pytest.raises(MembershipError, match="ask the root") as caught:
        install_kit(folder, federation.approve("ward"), now=NOW)
    assert caught.value.reason == "conflict"


def test_kit_of_a_member_struck_off_since_is_refused(federation):
    folder = federation.join("ward")
    kit = federation.approve("ward")
    adopt_membership(folder, revoke(federation.root, "ward", now=NOW))
    with pytest.raises(MembershipError, match="is not in version 4") as caught:
        install_kit(folder, kit, now=NOW)
    assert caught.value.reason == "not-member"


def test_kit_with_a_changed_membership_is_refused(federation):
    kit = federation.approve("ward")
    membership = replace(kit.signed.membership, coordinator="evil.example.org:1")
    changed = replace(kit, signed=replace(kit.signed, membership=membership))
    with pytest.raises(MembershipError, match="is not signed by the pinned root"):
        install_kit(federation.path / "ward", changed, now=NOW)


def install_until(folder, kit, step):
    def kill(name):
        if name == step or (step == "ROSTER" and len(name) == 68):
            os.kill(os.getpid(), signal.SIGKILL)

    install_kit(folder, kit, now=NOW, on_step=kill)


def kill_at(folder, kit, step):
    process = get_context("fork").Process(target=install_until, args=(folder, kit, step))
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("step", FIRST)
def test_first_installation_that_was_killed_is_completed_by_another(federation, step):
    folder, kit = federation.path / "ward", federation.approve("ward")
    kill_at(folder, kit, step)
    install_kit(folder, kit, now=NOW)
    assert load_member(folder).signed == kit.signed


@pytest.mark.parametrize("step", RENEWAL)
def test_renewal_that_was_killed_is_completed_by_another(federation, step):
    folder = federation.join("ward")
    kit = federation.approve("ward")
    kill_at(folder, kit, step)
    install_kit(folder, kit, now=NOW)
    assert load_member(folder).signed == kit.signed
    assert not (folder / "tls.key.next").exists()


def test_key_and_certificate_that_do_not_fit_say_what_to_do(federation):
    folder = federation.join("ward")
    kill_at(folder, federation.approve("ward"), "tls.key")
    with pytest.raises(SiteError, match="join with the same kit again"):
        load_member(folder)


def test_disk_full_is_one_line_and_the_same_again_completes(federation):
    folder, kit = federation.path / "ward", federation.approve("ward")
    with full_disk(600), pytest.raises(SiteError, match="free space") as caught:
        install_kit(folder, kit, now=NOW)
    assert "\n" not in str(caught.value)
    assert not list(folder.rglob("*.partial"))
    assert not (folder / "membership.bin").exists()
    install_kit(folder, kit, now=NOW)
    assert load_member(folder).signed == kit.signed


def test_folder_that_has_not_joined_says_what_to_do(federation):
    create_request(federation.path / "ward", "ward", "site")
    with pytest.raises(SiteError, match=r"hand its request\.bin to the federation's root"):
        load_member(federation.path / "ward")

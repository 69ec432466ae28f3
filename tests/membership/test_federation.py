"""The root: who is taken in, renewed, replaced and struck off, and what the others notice of it."""

import json
import stat
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.errors import AuditError, ConfigError, SiteError
from fedtrain.membership.admission import check_fingerprint
from fedtrain.membership.adoption import adopt_membership
from fedtrain.membership.approvals import load_approvals
from fedtrain.membership.faults import MembershipError
from fedtrain.membership.federation import approve, create_federation, load_federation, revoke
from fedtrain.membership.member import load_member
from fedtrain.membership.membership import (
    find_member,
    load_membership,
    save_membership,
    sign_membership,
)
from fedtrain.membership.records import MAX_MEMBERS, MemberEntry
from fedtrain.membership.requests import compute_fingerprint, create_request
from fedtrain.secagg import simulated
from fedtrain.secagg.files import load_identity, load_root_key
from fedtrain.secagg.roster import get_keys, verify_roster
from tests.membership.members import ADDRESS, DAY, NOW, Federation, full_disk

SITES = ("alpha", "ward")


@pytest.fixture
def federation(tmp_path):
    return Federation(tmp_path)


def list_names(signed):
    return [entry.name for entry in signed.membership.entries]


def test_new_federation_has_no_members_and_version_1(federation):
    membership = load_federation(federation.root).membership
    assert (membership.version, membership.entries, membership.issued) == (1, (), NOW)
    assert (membership.federation, membership.coordinator) == ("heart", ADDRESS)


def test_root_s_folder_is_closed_to_others(federation):
    assert stat.S_IMODE(federation.root.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in federation.root.iterdir()} == {0o600}


def test_new_federation_in_a_folder_that_exists_is_refused(federation):
    before = (federation.root / "root.key").read_bytes()
    with pytest.raises(ConfigError, match="exists and is kept"):
        create_federation(federation.root, "lung", ADDRESS)
    assert (federation.root / "root.key").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "address"),
    [("he/art", ADDRESS), ("heart", "nowhere"), (simulated.FEDERATION, ADDRESS)],
)
def test_impossible_federation_is_refused_before_anything_is_made(tmp_path, name, address):
    with pytest.raises(ConfigError):
        create_federation(tmp_path / "root", name, address)
    assert not list(tmp_path.iterdir())


def test_federation_that_cannot_be_made_is_one_line_and_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SiteError, match="cannot be made"):
        create_federation(tmp_path / "file" / "root", "heart", ADDRESS)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_disk_full_leaves_no_new_federation(tmp_path):
    with full_disk(300), pytest.raises(SiteError, match="free space"):
        create_federation(tmp_path / "root", "heart", ADDRESS)
    assert not list(tmp_path.iterdir())


def test_approval_lists_the_member_and_the_roster_its_sites(federation):
    for name in SITES:
        federation.approve(name)
    signed = federation.approve("ann", "admin").signed
    assert list_names(signed) == ["alpha", "ann", "ward"]
    root = load_root_key(federation.root / "root.pub")
    keys = get_keys(verify_roster(signed.membership.roster, root))
    assert sorted(keys) == list(SITES)
    assert keys["ward"] == find_member(signed.membership, "ward").public_key
    assert signed.membership.version == signed.membership.roster.roster.version == 4


def test_approval_of_the_same_request_gives_a_new_certificate_and_the_same_membership(federation):
    first, again = federation.approve("ward"), federation.approve("ward", now=NOW + DAY)
    assert again.signed == first.signed
    ends = [
        x509.load_der_x509_certificate(kit.certificate).not_valid_after_utc
        for kit in (first, again)
    ]
    assert (ends[1] - ends[0]).days == 1


def test_certificate_holds_as_long_as_the_federation_s_file_says(federation):
    (federation.root / "federation.toml").write_text("certificate_days = 3\n")
    found = x509.load_der_x509_certificate(federation.approve("ward").certificate)
    assert found.not_valid_after_utc.timestamp() == NOW + 3 * DAY


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("certificate_days = 0\n", ConfigError),
        ("certificate_days = true\n", ConfigError),
        ("certificate_days = 826\n", ConfigError),
        ("", ConfigError),
        ("certificate_days =", SiteError),
    ],
)
def test_impossible_file_of_the_federation_is_refused(federation, text, kind):
    (federation.root / "federation.toml").write_text(text)
    with pytest.raises(kind, match="certificate_days"):
        federation.approve("ward")
    assert load_federation(federation.root).membership.version == 1


def test_renewal_changes_the_tls_key_of_one_member_alone(federation):
    federation.join("alpha")
    federation.join("ward")
    before = load_federation(federation.root).membership
    after = federation.approve("ward").signed.membership
    assert after.version == before.version + 1
    assert after.entries[0] == before.entries[0]
    assert after.entries[1].public_key == before.entries[1].public_key
    assert after.entries[1].tls_key_digest != before.entries[1].tls_key_digest
    assert get_keys(after.roster.roster) == get_keys(before.roster.roster)


def make_impostor(federation, role="site"):
    return create_request(federation.path / "elsewhere", "ward", role)


@pytest.mark.parametrize("role", ["site", "admin"])
def test_another_identity_under_a_known_name_is_refused_unless_replaced(federation, role):
    federation.approve("ward")
    impostor = make_impostor(federation, role)
    with pytest.raises(MembershipError, match="add --replace") as caught:
        approve(federation.root, impostor, now=NOW)
    assert caught.value.reason == "known-name"
    assert load_federation(federation.root).membership.version == 2
    replaced = approve(federation.root, impostor, replace=True, now=NOW).signed.membership
    assert replaced.entries[0].public_key == impostor.claim.public_key
    assert replaced.entries[0].role == role


@pytest.mark.parametrize("replacing", [False, True])
def test_second_coordinator_is_refused(federation, replacing):
    federation.approve("co", "coordinator")
    with pytest.raises(MembershipError, match="revoke co first"):
        federation.approve("co2", "coordinator", replace=replacing)


def test_name_that_differs_in_case_alone_is_refused(federation):
    federation.approve("ward")
    with pytest.raises(MembershipError, match="the same name but for case"):
        federation.approve("Ward")


def test_key_of_another_member_is_refused(federation):
    federation.approve("ward")
    (federation.path / "twin").mkdir(mode=0o700)
    (federation.path / "ward" / "identity.key").rename(federation.path / "twin" / "identity.key")
    with pytest.raises(MembershipError, match="one of the same keys"):
        federation.approve("twin", "auditor")


def test_request_changed_in_memory_is_refused(federation):
    request = create_request(federation.path / "ward", "ward", "site")
    changed = replace(request, claim=replace(request.claim, role="admin"))
    with pytest.raises(MembershipError, match="not signed with its own keys"):
        approve(federation.root, changed)


def test_coordinator_that_moves_takes_the_federation_s_address_with_it(federation):
    federation.approve("co", "coordinator")
    request = create_request(federation.path / "co", "co", "coordinator", "new.example.org:1")
    assert approve(federation.root, request, now=NOW).signed.membership.coordinator == (
        "new.example.org:1"
    )


def test_revoked_member_is_in_neither_membership_nor_roster(federation):
    for name in SITES:
        federation.approve(name)
    signed = revoke(federation.root, "alpha", now=NOW + 1)
    assert list_names(signed) == ["ward"]
    assert list(get_keys(signed.membership.roster.roster)) == ["ward"]
    assert (signed.membership.version, signed.membership.issued) == (4, NOW + 1)
    assert load_federation(federation.root) == signed


def test_revocation_of_nobody_is_refused_and_names_the_members(federation):
    federation.approve("ward")
    with pytest.raises(MembershipError, match=r"'x' is no member of 'heart'; members: ward"):
        revoke(federation.root, "x")


def test_revoked_member_may_come_back(federation):
    federation.approve("ward")
    revoke(federation.root, "ward", now=NOW)
    assert list_names(federation.approve("ward").signed) == ["ward"]


def test_every_decision_is_recorded(federation):
    kit = federation.approve("ward")
    revoke(federation.root, "ward", now=NOW + 5)
    taken, struck = load_approvals(federation.root / "approvals.jsonl")
    request = create_request(federation.path / "ward", "ward", "site")
    assert (taken.action, taken.name, taken.version, taken.time) == ("approved", "ward", 2, NOW)
    assert taken.fingerprint == compute_fingerprint(request)
    assert taken.tls_key_digest == kit.signed.membership.entries[0].tls_key_digest.hex()
    assert taken.certificate_end == NOW + 397 * DAY
    assert (struck.action, struck.version, struck.time) == ("revoked", 3, NOW + 5)


def test_decision_without_its_end_never_was_and_a_damaged_one_is_refused(federation):
    federation.approve("ward")
    path = federation.root / "approvals.jsonl"
    path.write_text(path.read_text() + '{"time": 1, "act')
    assert [one.name for one in load_approvals(path)] == ["ward"]
    federation.approve("alpha")
    assert [one.name for one in load_approvals(path)] == ["ward", "alpha"]
    path.write_text(json.dumps({"time": 1}) + "\n")
    with pytest.raises(AuditError, match="line 1 is no decision"):
        load_approvals(path)


@pytest.mark.parametrize("limit", [300, 500], ids=["no decision", "no membership"])
def test_disk_full_at_the_root_leaves_the_old_membership_and_the_same_again_works(
    federation, limit
):
    request = create_request(federation.path / "ward", "ward", "site")
    before = (federation.root / "membership.bin").read_bytes()
    with full_disk(limit), pytest.raises(SiteError, match="free space"):
        approve(federation.root, request, now=NOW)
    assert (federation.root / "membership.bin").read_bytes() == before
    assert list_names(approve(federation.root, request, now=NOW).signed) == ["ward"]
    assert load_approvals(federation.root / "approvals.jsonl")[-1].version == 2


def test_root_s_key_is_needed_and_its_folder_not_made(federation):
    request = create_request(federation.path / "ward", "ward", "site")
    with pytest.raises(SiteError, match=r"root.key cannot be read"):
        approve(federation.path / "missing", request)
    assert not (federation.path / "missing").exists()


def test_membership_of_another_root_in_the_root_s_folder_is_refused(federation, tmp_path):
    (tmp_path / "b").mkdir()
    other = Federation(tmp_path / "b")
    save_membership(federation.root / "membership.bin", load_federation(other.root))
    with pytest.raises(MembershipError, match="not signed by the pinned root"):
        federation.approve("ward")


def test_days_beyond_any_sense_are_refused(federation):
    with pytest.raises(ConfigError, match="days = 826 is not a whole number from 1 to 825"):
        federation.approve("ward", days=826)


def test_fingerprint_that_was_read_out_is_compared(federation):
    request = create_request(federation.path / "ward", "ward", "site")
    check_fingerprint(request, compute_fingerprint(request).upper())
    with pytest.raises(MembershipError, match="exchanged on the way"):
        check_fingerprint(request, compute_fingerprint(make_impostor(federation)))


def test_largest_membership_is_read_back(federation, tmp_path):
    signed = load_federation(federation.root)
    root = load_identity(federation.root / "root.key")
    entries = [
        MemberEntry(
            f"{number:064}", "site", *(bytes([i]) * 28 + number.to_bytes(4) for i in (1, 2))
        )
        for number in range(MAX_MEMBERS)
    ]
    fields = {"ca_certificate": signed.membership.ca_certificate, "coordinator": ADDRESS}
    most = sign_membership(root, "heart", version=2, issued=NOW, entries=entries, **fields)
    save_membership(tmp_path / "m", most)
    assert load_membership(tmp_path / "m", root.public_key) == most


@given(
    st.lists(
        st.tuples(st.sampled_from(["approve", "renew", "revoke"]), st.sampled_from("abc")),
        max_size=8,
    )
)
@settings(max_examples=8, deadline=None)
def test_any_decisions_in_any_order_are_followed_by_a_member_that_watches(decisions):
    with tempfile.TemporaryDirectory() as folder:
        federation = Federation(Path(folder))
        watcher = federation.join("watcher", "auditor")
        members = {"watcher"}
        for decision, name in decisions:
            if decision == "revoke" and name not in members:
                continue
            if decision == "revoke":
                adopt_membership(watcher, revoke(federation.root, name, now=NOW))
                members.remove(name)
            elif name not in members or decision == "renew":
                federation.join(name)
                adopt_membership(watcher, load_federation(federation.root))
                members.add(name)
            assert set(list_names(load_member(watcher).signed)) == members

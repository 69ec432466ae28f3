"""A request: made beside its keys, once, and the same again until it was answered."""

import stat

import pytest

from fedtrain.errors import ConfigError, SiteError
from fedtrain.membership.faults import MembershipError
from fedtrain.membership.requests import (
    compute_fingerprint,
    create_request,
    is_same_fingerprint,
    load_request,
)
from fedtrain.secagg import encode
from fedtrain.secagg.files import create_identity
from tests.membership.members import ADDRESS, Federation

PRIVATE = b"PRIVATE KEY"


def read_all(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_request_is_read_back(tmp_path):
    made = create_request(tmp_path / "co", "co", "coordinator", ADDRESS)
    assert load_request(tmp_path / "co" / "request.bin") == made
    assert (made.name, made.role, made.claim.address) == ("co", "coordinator", (ADDRESS,))


def test_folder_is_closed_to_others_and_only_keys_are_private(tmp_path):
    create_request(tmp_path / "ward", "ward", "site")
    assert stat.S_IMODE((tmp_path / "ward").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "ward").iterdir()} == {0o600}
    private = {name for name, content in read_all(tmp_path / "ward").items() if PRIVATE in content}
    assert private == {"identity.key", "tls.key"}


def test_request_that_was_not_answered_is_the_same_again(tmp_path):
    create_request(tmp_path / "ward", "ward", "site")
    before = read_all(tmp_path / "ward")
    create_request(tmp_path / "ward", "ward", "site")
    assert read_all(tmp_path / "ward") == before


def test_identity_that_was_there_is_used(tmp_path):
    identity = create_identity(tmp_path / "identity.key")
    tmp_path.chmod(0o700)
    assert create_request(tmp_path, "ward", "site").claim.public_key == identity.public_key


@pytest.mark.parametrize("missing", ["request.bin", "tls.key"])
def test_request_that_was_interrupted_is_completed_with_the_keys_there_are(tmp_path, missing):
    first = create_request(tmp_path / "ward", "ward", "site")
    (tmp_path / "ward" / "request.bin").unlink()
    (tmp_path / "ward" / missing).unlink(missing_ok=True)
    again = create_request(tmp_path / "ward", "ward", "site")
    assert again.claim.public_key == first.claim.public_key
    assert (again.claim == first.claim) == (missing == "request.bin")


def test_coordinator_that_moves_before_it_joined_keeps_its_keys(tmp_path):
    first = create_request(tmp_path / "co", "co", "coordinator", ADDRESS)
    again = create_request(tmp_path / "co", "co", "coordinator", "train.example.org:1")
    assert again.claim.tls_public_key == first.claim.tls_public_key
    assert compute_fingerprint(again) != compute_fingerprint(first)


@pytest.mark.parametrize(("name", "role"), [("other", "site"), ("ward", "admin")])
def test_folder_of_another_member_is_refused(tmp_path, name, role):
    create_request(tmp_path / "ward", "ward", "site")
    with pytest.raises(ConfigError, match="is the folder of site 'ward'"):
        create_request(tmp_path / "ward", name, role)


@pytest.mark.parametrize(
    ("name", "role", "address"),
    [
        ("a/b", "site", ""),
        ("ward", "root", ""),
        ("ward", "site", ADDRESS),
        ("co", "coordinator", ""),
        ("co", "coordinator", "0.0.0.0:7443"),
    ],
)
def test_impossible_values_are_refused_before_anything_is_made(tmp_path, name, role, address):
    with pytest.raises(ConfigError):
        create_request(tmp_path / "new", name, role, address)
    assert not (tmp_path / "new").exists()


def test_folder_that_others_can_enter_is_refused(tmp_path):
    (tmp_path / "ward").mkdir(mode=0o755)
    with pytest.raises(SiteError, match=r"mode 0755.*chmod 700"):
        create_request(tmp_path / "ward", "ward", "site")


def test_keys_that_others_can_read_are_refused(tmp_path):
    create_request(tmp_path / "ward", "ward", "site")
    (tmp_path / "ward" / "tls.key").chmod(0o640)
    with pytest.raises(SiteError, match=r"mode 0640.*chmod 0600"):
        create_request(tmp_path / "ward", "ward", "site")


def test_key_of_another_kind_is_refused(tmp_path):
    create_request(tmp_path / "ward", "ward", "site")
    identity = (tmp_path / "ward" / "identity.key").read_bytes()
    (tmp_path / "ward" / "tls.key").write_bytes(identity)
    with pytest.raises(SiteError, match="no P-256 key"):
        create_request(tmp_path / "ward", "ward", "site")


def test_renewal_makes_a_new_tls_key_and_leaves_the_old_one_in_use(tmp_path):
    folder = Federation(tmp_path).join("ward")
    before = read_all(folder)
    old = load_request(folder / "request.bin")
    new = create_request(folder, "ward", "site")
    assert new.claim.public_key == old.claim.public_key
    assert new.claim.tls_public_key != old.claim.tls_public_key
    after = read_all(folder)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"tls.key.next", "request.bin"}
    assert encode(create_request(folder, "ward", "site")) == after["request.bin"]


def test_request_changed_on_disk_is_refused_with_its_path(tmp_path):
    create_request(tmp_path / "ward", "ward", "site")
    path = tmp_path / "ward" / "request.bin"
    path.write_bytes(path.read_bytes().replace(b"ward", b"warp"))
    with pytest.raises(MembershipError, match=r"request.bin: .*not signed with its own keys"):
        load_request(path)


def test_fingerprint_is_ten_groups_of_four_hex_digits(tmp_path):
    shown = compute_fingerprint(create_request(tmp_path / "ward", "ward", "site"))
    assert [len(group) for group in shown.split(" ")] == [4] * 10
    assert int(shown.replace(" ", ""), 16) >= 0


def test_fingerprints_are_compared_without_spaces_colons_and_case():
    assert is_same_fingerprint("AB12 cd34", "ab:12:cd:34")
    assert not is_same_fingerprint("ab12 cd34", "ab12")
    assert not is_same_fingerprint("ab12", "")

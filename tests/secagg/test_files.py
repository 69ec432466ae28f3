"""Files of a deployed site: keys that only their owner reads, a roster that only the root signs."""

import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from fedtrain.errors import SiteError
from fedtrain.secagg import Identity, RefusalError, encode, simulated
from fedtrain.secagg.files import (
    create_identity,
    load_identity,
    load_public_key,
    load_root_key,
    save_public_key,
    save_roster,
)
from fedtrain.secagg.files import load_roster as load
from tests.secagg.federation import ROOT, Federation


def test_identity_is_read_back(tmp_path):
    made = create_identity(tmp_path / "site.key")
    assert load_identity(tmp_path / "site.key").to_private_bytes() == made.to_private_bytes()
    assert (tmp_path / "site.key").stat().st_mode & 0o777 == 0o600


def test_identities_differ(tmp_path):
    keys = {create_identity(tmp_path / name).public_key for name in ("a", "b")}
    assert len(keys) == 2


def test_identity_is_never_overwritten(tmp_path):
    create_identity(tmp_path / "site.key")
    before = (tmp_path / "site.key").read_bytes()
    with pytest.raises(SiteError, match="exists and is kept"):
        create_identity(tmp_path / "site.key")
    assert (tmp_path / "site.key").read_bytes() == before


def test_identity_in_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(SiteError, match="in a folder that exists"):
        create_identity(tmp_path / "missing" / "site.key")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_identity_that_others_can_use_is_refused(tmp_path, mode):
    create_identity(tmp_path / "site.key")
    (tmp_path / "site.key").chmod(mode)
    with pytest.raises(SiteError, match=rf"mode {mode:04o}.*chmod 0600"):
        load_identity(tmp_path / "site.key")


def test_openssl_reads_the_identity(tmp_path):
    made = create_identity(tmp_path / "site.key")
    command = ["openssl", "pkey", "-in", tmp_path / "site.key", "-pubout", "-outform", "DER"]
    shown = subprocess.run(command, capture_output=True, check=True).stdout
    assert shown[-32:] == made.public_key


def write_private(path, content):
    path.touch(mode=0o600)
    path.write_bytes(content)
    return path


def make_encrypted(path):
    create_identity(path)
    key = load_pem_private_key(path.read_bytes(), password=None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word"))


@pytest.mark.parametrize("content", [b"", b"garbage", b"-----BEGIN PRIVATE KEY-----\n"])
def test_identity_that_is_no_key_is_refused(tmp_path, content):
    with pytest.raises(SiteError, match="no unencrypted private key"):
        load_identity(write_private(tmp_path / "site.key", content))


def test_encrypted_identity_is_refused(tmp_path):
    content = make_encrypted(tmp_path / "plain.key")
    with pytest.raises(SiteError, match="no unencrypted private key"):
        load_identity(write_private(tmp_path / "site.key", content))


def test_key_of_another_kind_is_refused(tmp_path):
    key = X25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(SiteError, match="no Ed25519 key"):
        load_identity(write_private(tmp_path / "site.key", private))
    with pytest.raises(SiteError, match="no Ed25519 key"):
        load_root_key(write_private(tmp_path / "root.pub", public))


@pytest.mark.parametrize("read", [load_identity, load_public_key, load_root_key])
def test_missing_file_is_refused(tmp_path, read):
    with pytest.raises(SiteError, match="No such file"):
        read(tmp_path / "missing")


def test_public_key_is_read_back(tmp_path):
    save_public_key(tmp_path / "root.pub", ROOT.public_key)
    assert load_root_key(tmp_path / "root.pub") == ROOT.public_key
    assert load_public_key(tmp_path / "root.pub") == ROOT.public_key


def test_private_key_in_place_of_a_public_one_is_refused(tmp_path):
    create_identity(tmp_path / "site.key")
    with pytest.raises(SiteError, match="no public key"):
        load_public_key(tmp_path / "site.key")


def test_root_key_that_others_can_change_is_refused(tmp_path):
    save_public_key(tmp_path / "root.pub", ROOT.public_key)
    (tmp_path / "root.pub").chmod(0o664)
    with pytest.raises(SiteError, match=r"mode 0664.*chmod 0644"):
        load_root_key(tmp_path / "root.pub")
    assert load_public_key(tmp_path / "root.pub") == ROOT.public_key


def test_roster_is_read_back(tmp_path):
    roster = Federation(4).roster
    save_roster(tmp_path / "roster", roster)
    assert load(tmp_path / "roster", ROOT.public_key) == roster


def test_roster_of_another_root_is_refused(tmp_path):
    save_roster(tmp_path / "roster", Federation(4, root=Identity.generate()).roster)
    with pytest.raises(RefusalError, match="not signed by the pinned root"):
        load(tmp_path / "roster", ROOT.public_key)


def test_roster_of_a_simulation_is_refused(tmp_path):
    save_roster(tmp_path / "roster", simulated.make_signed_roster(1, ("a", "b", "c")))
    with pytest.raises(SiteError, match="anyone can compute"):
        load(tmp_path / "roster", simulated.make_root(1).public_key)


@pytest.mark.parametrize("change", [lambda c: c[:-1], lambda c: c + b"\0", lambda c: b""])
def test_damaged_roster_is_refused(tmp_path, change):
    (tmp_path / "roster").write_bytes(change(encode(Federation(4).roster)))
    with pytest.raises(SiteError, match="is no signed roster"):
        load(tmp_path / "roster", ROOT.public_key)


def test_roster_beyond_any_size_is_not_read_whole(tmp_path):
    with (tmp_path / "roster").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(SiteError, match="more than"):
        load(tmp_path / "roster", ROOT.public_key)


def test_roster_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(SiteError, match="in a folder that exists"):
        save_roster(tmp_path / "missing" / "roster", Federation(4).roster)

"""The golden vectors of tests/vectors/membership.json, most of which must be refused."""

import hashlib
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fedtrain.membership.faults import REASONS, MembershipError
from fedtrain.membership.kits import install_kit, load_kit
from fedtrain.membership.membership import verify_membership, verify_newer_membership
from fedtrain.membership.requests import compute_fingerprint, compute_root_fingerprint
from fedtrain.membership.requests import verify_request as verify
from fedtrain.secagg import encode
from tests.vectors.make_membership import make_tree

TREE = json.loads((Path(__file__).parents[1] / "vectors" / "membership.json").read_text())
ROOT = bytes.fromhex(TREE["root_public_key"])


def list_vectors(kind):
    chosen = [vector for vector in TREE["vectors"] if vector["kind"] == kind]
    return pytest.mark.parametrize("vector", chosen, ids=[vector["name"] for vector in chosen])


def check(vector, act):
    """Run an act on a vector's bytes; what it returns is encoded as those bytes."""
    data = bytes.fromhex(vector["data"])
    if "fails" in vector:
        with pytest.raises(MembershipError) as caught:
            act(data)
        assert caught.value.reason == vector["fails"]
        assert "\n" not in str(caught.value)
    else:
        assert encode(act(data)) == data


@list_vectors("request")
def test_request_vector(vector):
    check(vector, verify)


@list_vectors("membership")
def test_membership_vector(vector):
    check(vector, lambda data: verify_membership(data, ROOT))


@list_vectors("newer")
def test_newer_membership_vector(vector):
    pinned = verify_membership(bytes.fromhex(TREE["pinned"]), ROOT)

    def adopt(data):
        signed = verify_newer(data)
        verify_newer_membership(signed, ROOT, pinned=pinned)
        return signed

    def verify_newer(data):
        return verify_membership(data, ROOT)

    check(vector, adopt)


def write_private(path, key):
    path.touch(mode=0o600)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


@pytest.fixture
def site(tmp_path):
    """Return the folder of the vectors' site, with its keys and its request."""
    keys = TREE["site"]
    identity = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(keys["identity"]))
    write_private(tmp_path / "identity.key", identity)
    number = int(keys["tls_key"], 16)
    write_private(tmp_path / "tls.key", ec.derive_private_key(number, ec.SECP256R1()))
    (tmp_path / "request.bin").write_bytes(bytes.fromhex(TREE["vectors"][0]["data"]))
    return tmp_path


@list_vectors("kit")
def test_kit_vector(vector, site):
    before = {path.name for path in site.iterdir()}

    def install(data):
        (site / "kit").write_bytes(data)
        kit = load_kit(site / "kit")
        install_kit(site, kit, root_fingerprint=compute_root_fingerprint(ROOT), now=TREE["now"])
        return kit

    check(vector, install)
    left = {path.name for path in site.iterdir()} - before - {"kit", "membership.lock"}
    assert bool(left) == ("fails" not in vector)


def test_fingerprint_is_that_of_another_program():
    request = verify(bytes.fromhex(TREE["vectors"][0]["data"]))
    assert compute_fingerprint(request).replace(" ", "") == TREE["fingerprint"]


def test_root_fingerprint_is_that_of_another_program():
    prefix = b"fedtrain/secagg/v1/root-fingerprint"
    framed = len(prefix).to_bytes(4, "big") + prefix + (32).to_bytes(4, "big") + ROOT
    shown = compute_root_fingerprint(ROOT).replace(" ", "")
    assert shown == hashlib.sha256(framed).hexdigest()[:40]


def test_generator_makes_these_vectors():
    assert make_tree() == TREE


def test_most_vectors_must_be_refused_and_name_known_reasons():
    fails = [vector["fails"] for vector in TREE["vectors"] if "fails" in vector]
    assert len(fails) > len(TREE["vectors"]) / 2
    assert set(fails) | {"known-name"} == set(REASONS)

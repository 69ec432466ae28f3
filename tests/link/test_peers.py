"""Which member a certificate is of: everything that must hold, each broken alone."""

import time
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from fedtrain.link.faults import IdentityError, RevokedError
from fedtrain.link.peers import Peer, identify, read_peer
from fedtrain.membership.certificates import load_certificate, load_key
from tests.link.certificates import issue, make_key

DAY = 86_400
URI = "fedtrain:heart/site/alpha"


@pytest.fixture(scope="module")
def key(deployment):
    return load_key(deployment.alpha / "tls.key")


def identify_now(deployment, certificate):
    return identify(certificate, deployment.membership, now=int(time.time()))


def test_certificate_of_a_member_is_its(deployment, key):
    issued = load_certificate(deployment.alpha / "tls.crt")
    assert identify_now(deployment, issued) == Peer("alpha", "site")
    assert identify_now(deployment, issue(deployment, URI, key)) == Peer("alpha", "site")


@pytest.mark.parametrize(
    "uri",
    [
        "fedtrain:heart/researcher/alpha",
        "fedtrain:heart/admin/alpha",
        "fedtrain:heart/coordinator/center",
        "fedtrain:lung/site/alpha",
        "fedtrain:heart/alpha",
        "fedtrain:heart/site/x/alpha",
        "fedtrain:heart/site/Alpha",
        "https://alpha",
    ],
)
def test_certificate_with_another_name_or_role_is_refused(deployment, key, uri):
    with pytest.raises(IdentityError):
        identify_now(deployment, issue(deployment, uri, key))


def test_certificate_that_names_nobody_is_refused(deployment):
    authority = load_certificate(deployment.coordinator / "ca.crt")  # it has no alternative name
    with pytest.raises(IdentityError, match="names no member"):
        identify_now(deployment, authority)


def test_certificate_of_a_member_for_another_member_s_name_is_refused(deployment, key):
    deployment.join("ward")
    with pytest.raises(IdentityError, match="'ward'"):
        identify_now(deployment, issue(deployment, "fedtrain:heart/site/ward", key))


def test_certificate_for_a_key_that_is_not_listed_is_refused(deployment):
    with pytest.raises(IdentityError, match="TLS key"):
        identify_now(deployment, issue(deployment, URI, make_key()))


def test_certificate_that_may_serve_is_refused(deployment, key):
    with pytest.raises(IdentityError):
        identify_now(deployment, issue(deployment, URI, key, address="127.0.0.1:7443"))


def test_certificate_of_another_authority_is_refused(deployment, key):
    other = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(IdentityError, match="authority"):
        identify_now(deployment, issue(deployment, URI, key, ca_key=other))


@pytest.mark.parametrize(("begun", "end"), [(-11, "ended"), (1, "begins")])
def test_certificate_out_of_its_time_is_refused(deployment, key, begun, end):
    certificate = issue(deployment, URI, key, now=int(time.time()) + begun * DAY)
    with pytest.raises(IdentityError, match=end):
        identify_now(deployment, certificate)


def test_member_that_is_not_listed_is_revoked(deployment, key):
    signed = deployment.membership
    kept = tuple(entry for entry in signed.membership.entries if entry.name != "alpha")
    without = replace(signed, membership=replace(signed.membership, entries=kept))
    with pytest.raises(RevokedError, match="revoked"):
        identify(issue(deployment, URI, key), without, now=int(time.time()))


class Context:
    """A call of which gRPC says what a test wants."""

    def __init__(self, **properties):
        self.properties = properties

    def auth_context(self):
        return self.properties


def test_connection_that_is_no_tls_1_3_is_refused(deployment):
    pem = (deployment.alpha / "tls.crt").read_bytes()
    new = Context(x509_pem_cert=[pem], ssl_tls_version=[b"TLSv1.3"])
    assert read_peer(new, deployment.membership) == Peer("alpha", "site")
    old = Context(x509_pem_cert=[pem], ssl_tls_version=[b"TLSv1.2"])
    with pytest.raises(IdentityError, match=r"TLS 1\.3"):
        read_peer(old, deployment.membership)


@pytest.mark.parametrize("pems", [[], [b"no certificate"], [b"x", b"y"]])
def test_connection_without_one_certificate_is_refused(deployment, pems):
    context = Context(x509_pem_cert=pems, ssl_tls_version=[b"TLSv1.3"])
    with pytest.raises(IdentityError, match="certificate"):
        read_peer(context, deployment.membership)

"""Who gets through: real servers and clients on loopback, each refusal beside what is let in."""

import socket
import ssl
import time

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fedtrain.errors import SiteError
from fedtrain.link import handshake
from fedtrain.link.faults import (
    IdentityError,
    RevokedError,
    TransportError,
    UnavailableError,
    UnlistedKeyError,
)
from fedtrain.link.handshake import offer_old_tls, shake_hands
from fedtrain.link.status import translate
from fedtrain.link.tls import check_server, make_server_credentials, open_channel
from fedtrain.membership.certificates import load_key
from fedtrain.membership.faults import MembershipError
from fedtrain.membership.federation import approve, revoke
from fedtrain.membership.kits import install_kit
from fedtrain.membership.records import COORDINATOR
from fedtrain.membership.requests import create_request
from tests.link.certificates import issue, renew
from tests.link.deployment import Deployment, answering_with, find_port, greet, serving

DAY = 86_400


@pytest.fixture(scope="module")
def served(deployment):
    with serving(deployment):
        yield deployment


def make_context(folder, *, ca=None, certificate=True):
    """Return what Python's own TLS needs to dial as the owner of a folder."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(ca or folder / "ca.crt")
    if certificate:
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return context


def call(channel):
    """Return what a call that fails is at this end."""
    with pytest.raises(grpc.RpcError) as caught:
        greet(channel, seconds=3.0)
    return translate(caught.value)


def test_member_is_let_in_by_its_own_name_and_role(served):
    assert greet(open_channel(served.alpha, served.address)) == "site alpha"


def test_coordinator_is_known_by_its_key_however_it_is_reached(served):
    address = served.address.replace("127.0.0.1", "localhost")
    assert greet(open_channel(served.alpha, address)) == "site alpha"


def test_operators_are_let_in_as_what_they_are(tmp_path):
    deployment = Deployment(tmp_path)
    auditor = deployment.join("eve", "auditor")
    deployment.install(deployment.coordinator)
    with serving(deployment):
        assert greet(open_channel(auditor, deployment.address)) == "auditor eve"


# What a server refuses.


def test_client_of_another_authority_is_refused(served, tmp_path):
    stranger = Deployment(tmp_path, port=7443).join("alpha")
    context = make_context(stranger, ca=served.alpha / "ca.crt")
    assert shake_hands(served.address, context).refusal
    assert not shake_hands(served.address, make_context(served.alpha)).refusal


def test_client_without_a_certificate_is_refused(served):
    context = make_context(served.alpha, certificate=False)
    assert shake_hands(served.address, context).refusal


def test_client_whose_certificate_has_ended_is_refused(served, tmp_path):
    now = int(time.time())
    folder = tmp_path / "late"
    folder.mkdir(mode=0o700)
    request = create_request(folder, "late", "site")
    kit = approve(served.root, request, now=now - 3 * DAY, days=1)
    install_kit(folder, kit, now=now - 3 * DAY)
    assert shake_hands(served.address, make_context(folder)).refusal
    install_kit(folder, approve(served.root, request))
    assert not shake_hands(served.address, make_context(folder)).refusal


def test_certificate_of_the_coordinator_cannot_dial(served):
    assert shake_hands(served.address, make_context(served.coordinator)).refusal


def test_plaintext_client_gets_no_answer(served):
    with grpc.insecure_channel(served.address) as channel:
        assert isinstance(call(channel), UnavailableError)
    with socket.create_connection(("127.0.0.1", int(served.address.split(":")[1]))) as raw:
        raw.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert raw.recv(1) in (b"", b"\x15")  # closed, or an alert of TLS


@pytest.mark.parametrize("certificate", [True, False])
def test_tls_1_2_client_is_refused(served, certificate):
    context = make_context(served.alpha, certificate=certificate)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", int(served.address.split(":")[1]))) as raw,
        pytest.raises(OSError, match=r"EOF|ALERT|reset"),
    ):
        context.wrap_socket(raw)
    assert not offer_old_tls(served.address)


def test_member_that_is_revoked_is_cut_off_in_an_open_connection(tmp_path):
    deployment = Deployment(tmp_path)
    ward = deployment.join("ward")
    deployment.install(deployment.coordinator)
    with serving(deployment), open_channel(ward, deployment.address) as channel:
        stub = channel.unary_unary("/fedtrain.link.v1.Link/Hello")
        assert b"site ward" in stub(b"", timeout=5)
        revoke(deployment.root, "ward")
        with pytest.raises(grpc.RpcError) as caught:
            stub(b"", timeout=5)
        assert isinstance(translate(caught.value), RevokedError)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_member_with_an_older_key_than_the_membership_lists_is_refused(tmp_path):
    deployment = Deployment(tmp_path)
    ward = deployment.join("ward")
    deployment.install(deployment.coordinator)
    with serving(deployment) as greeter:
        renewed = create_request(ward, "ward", "site")
        assert greet(open_channel(ward, deployment.address)) == "site ward"
        approve(deployment.root, renew(renewed, ward))
        failure = call(open_channel(ward, deployment.address))
        assert type(failure) is IdentityError
        assert greeter.calls == 1


# What a client refuses.


def test_server_of_another_federation_is_refused(tmp_path, deployment):
    other = Deployment(tmp_path, name="lung")
    with serving(other), pytest.raises(IdentityError, match="does not hold"):
        open_channel(deployment.alpha, other.address)


def test_site_that_serves_with_its_own_certificate_is_refused(tmp_path):
    deployment = Deployment(tmp_path)
    ward, alpha = deployment.join("ward"), deployment.join("alpha")
    pair = ((ward / "tls.key").read_bytes(), (ward / "tls.crt").read_bytes())
    ca = (ward / "ca.crt").read_bytes()
    credentials = grpc.ssl_server_credentials([pair], ca, require_client_auth=True)
    with serving(deployment, credentials=credentials), pytest.raises(IdentityError):
        open_channel(alpha, deployment.address)
    deployment.install(deployment.coordinator)
    with serving(deployment):
        assert greet(open_channel(alpha, deployment.address)) == "site alpha"


@pytest.fixture
def renewed(tmp_path):
    """A coordinator that has renewed its TLS key, and a site that has not heard of it."""
    deployment = Deployment(tmp_path)
    deployment.alpha = deployment.join("alpha")
    deployment.old_pair = tuple(
        (deployment.coordinator / name).read_bytes() for name in ("tls.key", "tls.crt")
    )
    for name in ("tls.key", "tls.crt", "request.bin"):
        (deployment.coordinator / name).unlink()
    deployment.join("center", COORDINATOR, address=deployment.address)
    return deployment


def test_coordinator_with_a_key_that_is_not_listed_hands_out_the_membership_only(renewed):
    with serving(renewed):
        with pytest.raises(UnlistedKeyError, match="newer membership"):
            open_channel(renewed.alpha, renewed.address)
        channel = open_channel(renewed.alpha, renewed.address, for_membership=True)
        assert greet(channel) == "site alpha"
        renewed.install(renewed.alpha)
        assert greet(open_channel(renewed.alpha, renewed.address)) == "site alpha"


def test_old_key_of_the_coordinator_is_refused_once_it_is_not_listed(renewed):
    renewed.install(renewed.alpha)
    ca = (renewed.alpha / "ca.crt").read_bytes()
    credentials = grpc.ssl_server_credentials([renewed.old_pair], ca, require_client_auth=True)
    with serving(renewed, credentials=credentials), pytest.raises(UnlistedKeyError):
        open_channel(renewed.alpha, renewed.address)


def test_channel_follows_no_other_certificate_than_it_was_opened_with(renewed):
    ca = (renewed.alpha / "ca.crt").read_bytes()
    credentials = grpc.ssl_server_credentials([renewed.old_pair], ca, require_client_auth=True)
    with serving(renewed, credentials=credentials) as greeter:
        channel = open_channel(renewed.alpha, renewed.address)
    with serving(renewed) as greeter:
        assert isinstance(call(channel), UnavailableError)
    assert greeter.calls == 0


def test_server_that_speaks_tls_1_2_only_is_refused(deployment, served):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(deployment.coordinator / "tls.crt", deployment.coordinator / "tls.key")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        answering_with(lambda raw: context.wrap_socket(raw, server_side=True)) as address,
        pytest.raises(UnavailableError, match=r"TLS 1\.3"),
    ):
        open_channel(deployment.alpha, address)


def test_channel_itself_does_not_speak_tls_1_2(deployment, served):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(deployment.coordinator / "tls.crt", deployment.coordinator / "tls.key")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    errors = []

    def answer(raw):
        try:
            context.wrap_socket(raw, server_side=True)
        except ssl.SSLError as error:
            errors.append(error.reason)

    with answering_with(answer) as address:
        ca, key, chain = ((deployment.alpha / name).read_bytes() for name in FILES)
        credentials = grpc.ssl_channel_credentials(ca, key, chain)
        assert isinstance(call(grpc.secure_channel(address, credentials)), UnavailableError)
    assert errors[0] == "NO_SHARED_CIPHER"


FILES = ("ca.crt", "tls.key", "tls.crt")


def test_plaintext_server_is_refused(deployment):
    with (
        answering_with(lambda raw: raw.sendall(b"\0\0\0\4\0\0\0\0\0")) as address,
        pytest.raises(UnavailableError, match=r"TLS 1\.3"),
    ):
        open_channel(deployment.alpha, address)


def test_server_that_stays_silent_is_given_up(deployment, monkeypatch):
    monkeypatch.setattr(handshake, "SECONDS", 0.3)
    with (
        answering_with(lambda raw: raw.recv(10_000) and time.sleep(1)) as address,
        pytest.raises(UnavailableError, match="timed out"),
    ):
        open_channel(deployment.alpha, address)


def test_nobody_there_is_said(deployment):
    address = f"127.0.0.1:{find_port()}"
    with pytest.raises(UnavailableError, match="does not answer"):
        open_channel(deployment.alpha, address)


def test_own_certificate_that_has_ended_is_said_before_dialling(tmp_path):
    deployment = Deployment(tmp_path)
    ended = deployment.join("ward", now=int(time.time()) - 3 * DAY, days=1)
    with pytest.raises(MembershipError, match="ended"):
        open_channel(ended, deployment.address)


# A server's own check, and who may serve.


def test_check_of_a_good_server_passes(served):
    check_server(served.coordinator, served.address)
    port = served.address.partition(":")[2]
    check_server(served.coordinator, "elsewhere.example.org:1", listen=f"[::]:{port}")


def test_server_that_takes_clients_without_a_certificate_fails_its_check(deployment):
    pair = [(deployment.coordinator / name).read_bytes() for name in ("tls.key", "tls.crt")]
    open_to_all = grpc.ssl_server_credentials([pair])
    address, deployment.address = deployment.address, f"127.0.0.1:{find_port()}"
    try:
        with (
            serving(deployment, credentials=open_to_all),
            pytest.raises(TransportError, match="without a certificate"),
        ):
            check_server(deployment.coordinator, deployment.address)
    finally:
        deployment.address = address


def test_another_coordinator_on_the_port_fails_the_check(tmp_path, renewed):
    ca = (renewed.alpha / "ca.crt").read_bytes()
    credentials = grpc.ssl_server_credentials([renewed.old_pair], ca, require_client_auth=True)
    with (
        serving(renewed, credentials=credentials),
        pytest.raises(TransportError, match="another coordinator"),
    ):
        check_server(renewed.coordinator, renewed.address)


def test_only_a_coordinator_serves(deployment):
    with pytest.raises(SiteError, match="only a coordinator"):
        make_server_credentials(deployment.alpha)


def test_coordinator_that_is_revoked_does_not_serve(tmp_path):
    deployment = Deployment(tmp_path)
    make_server_credentials(deployment.coordinator)
    revoke(deployment.root, "center")
    deployment.install(deployment.coordinator)
    with pytest.raises(SiteError, match="revoked"):
        make_server_credentials(deployment.coordinator)


def serve_with(deployment, uri, key):
    """Return credentials with any certificate that the federation's authority gives a server."""
    certificate = issue(deployment, uri, key, address=deployment.address)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pair = (private, certificate.public_bytes(Encoding.PEM))
    ca = (deployment.coordinator / "ca.crt").read_bytes()
    return grpc.ssl_server_credentials([pair], ca, require_client_auth=True)


@pytest.mark.parametrize("for_membership", [False, True])
@pytest.mark.parametrize("name", ["site/ward", "coordinator/ward", "site/center", "center"])
def test_server_certificate_with_another_name_or_role_is_refused(tmp_path, name, for_membership):
    deployment = Deployment(tmp_path)
    alpha = deployment.join("alpha")
    key = load_key(deployment.coordinator / "tls.key")
    dialled = {"for_membership": for_membership}
    bad = serve_with(deployment, f"fedtrain:heart/{name}", key)
    with serving(deployment, credentials=bad), pytest.raises(IdentityError, match="is not 'cent"):
        open_channel(alpha, deployment.address, **dialled)
    good = serve_with(deployment, "fedtrain:heart/coordinator/center", key)
    with serving(deployment, credentials=good):
        assert greet(open_channel(alpha, deployment.address, **dialled)) == "site alpha"


def test_federation_without_a_coordinator_has_nobody_to_dial(tmp_path):
    deployment = Deployment(tmp_path)
    alpha = deployment.join("alpha")
    with serving(deployment):
        revoke(deployment.root, "center")
        deployment.install(alpha)
        with pytest.raises(IdentityError, match="lists no coordinator"):
            open_channel(alpha, deployment.address)


def test_server_does_not_take_a_member_and_says_so_before_any_call(tmp_path):
    deployment, other = Deployment(tmp_path / "one"), Deployment(tmp_path / "two")
    alpha = deployment.join("alpha")
    pair = [(deployment.coordinator / name).read_bytes() for name in ("tls.key", "tls.crt")]
    ca = (other.coordinator / "ca.crt").read_bytes()
    strict = grpc.ssl_server_credentials([pair], ca, require_client_auth=True)
    with (
        serving(deployment, credentials=strict),
        pytest.raises(IdentityError, match="does not take this member's certificate"),
    ):
        open_channel(alpha, deployment.address)


def test_coordinator_whose_key_is_not_listed_does_not_serve(renewed):
    make_server_credentials(renewed.coordinator)
    for name, content in zip(("tls.key", "tls.crt"), renewed.old_pair, strict=True):
        (renewed.coordinator / name).write_bytes(content)
    with pytest.raises(SiteError, match="another TLS key"):
        make_server_credentials(renewed.coordinator)

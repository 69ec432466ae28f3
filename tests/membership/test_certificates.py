"""Certificates: who may dial, who may serve, and that other programs read them so."""

import ssl
import subprocess
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from fedtrain.errors import ConfigError, SiteError
from fedtrain.membership.certificates import (
    CA_DAYS,
    create_ca_certificate,
    create_key,
    format_member_uri,
    get_public_bytes,
    issue_certificate,
    load_certificate,
    load_key,
    load_public_bytes,
    verify_certificate,
)
from fedtrain.membership.faults import MembershipError
from tests.membership.members import DAY, NOW, Federation


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    made = Federation(tmp_path_factory.mktemp("federation"))
    for name, role in (("co", "coordinator"), ("ward", "site"), ("ann", "admin")):
        made.join(name, role)
    return made


def find(federation, name):
    return load_certificate(federation.path / name / "tls.crt")


@pytest.mark.parametrize(("name", "role"), [("ward", "site"), ("ann", "admin")])
def test_certificate_names_its_member_and_nothing_else(federation, name, role):
    names = find(federation, name).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert list(names.value) == [x509.UniformResourceIdentifier(f"fedtrain:heart/{role}/{name}")]


def test_coordinator_s_certificate_names_its_host_too(federation):
    names = find(federation, "co").extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert [str(one) for one in names.value.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    assert uris == ["fedtrain:heart/coordinator/co"]


@pytest.mark.parametrize("name", ["co", "ward"])
def test_certificate_holds_397_days_and_from_an_hour_ago(federation, name):
    found = find(federation, name)
    assert found.not_valid_after_utc == datetime.fromtimestamp(NOW + 397 * DAY, UTC)
    assert found.not_valid_before_utc == datetime.fromtimestamp(NOW - 3600, UTC)


@pytest.mark.parametrize(
    ("name", "purpose", "code"),
    [
        ("ward", "sslclient", 0),
        ("ann", "sslclient", 0),
        ("co", "sslserver", 0),
        ("ward", "sslserver", 2),
        ("co", "sslclient", 2),
    ],
)
def test_openssl_agrees_who_may_dial_and_who_may_serve(federation, name, purpose, code):
    folder = federation.path / name
    command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-attime", str(NOW)]
    command += ["-CAfile", str(folder / "ca.crt"), str(folder / "tls.crt")]
    assert subprocess.run(command, capture_output=True, check=False).returncode == code


def make_context(folder, side):
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    context.load_verify_locations(folder / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def shake_hands(server, client, host):
    """Run a mutual TLS 1.3 handshake in memory, and return who the client is to the server."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    dialer = make_context(client, ssl.PROTOCOL_TLS_CLIENT)
    listener = make_context(server, ssl.PROTOCOL_TLS_SERVER)
    client_end = dialer.wrap_bio(down, up, server_hostname=host)
    server_end = listener.wrap_bio(up, down, server_side=True)
    for end in (client_end, server_end, client_end, server_end):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return server_end.getpeercert()["subjectAltName"]


@pytest.fixture(scope="module")
def living(tmp_path_factory):
    """Return a federation whose certificates hold by this machine's clock."""
    made = Federation(tmp_path_factory.mktemp("living"), now=None)
    for name, role in (("co", "coordinator"), ("ward", "site")):
        made.join(name, role)
    return made


def test_site_and_coordinator_shake_hands(living):
    peer = shake_hands(living.path / "co", living.path / "ward", "127.0.0.1")
    assert peer == (("URI", "fedtrain:heart/site/ward"),)


@pytest.mark.parametrize(
    ("server", "client", "host", "words"),
    [
        ("co", "ward", "127.0.0.2", "IP address mismatch"),
        ("ward", "ward", "127.0.0.1", "unsuitable certificate purpose"),
        ("co", "co", "127.0.0.1", "unsuitable certificate purpose"),
    ],
    ids=["another host", "a site serves", "a coordinator dials"],
)
def test_handshake_of_a_certificate_out_of_its_place_fails(living, server, client, host, words):
    with pytest.raises(ssl.SSLCertVerificationError, match=words):
        shake_hands(living.path / server, living.path / client, host)


def test_certificate_ends_with_its_authority(tmp_path):
    key, ca_key = create_key(tmp_path / "key"), create_key(tmp_path / "ca")
    ca = create_ca_certificate("heart", ca_key, now=NOW)
    late = NOW + (CA_DAYS - 10) * DAY
    options = {"uri": "fedtrain:heart/site/w", "address": None, "days": 397}
    data = issue_certificate(ca, ca_key, public_bytes=get_public_bytes(key), now=late, **options)
    found = x509.load_der_x509_certificate(data)
    assert found.not_valid_after_utc == datetime.fromtimestamp(NOW + CA_DAYS * DAY, UTC)
    later = NOW + CA_DAYS * DAY
    with pytest.raises(ConfigError, match="authority ended"):
        issue_certificate(ca, ca_key, public_bytes=get_public_bytes(key), now=later, **options)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(397 * DAY + 1, "ended on .*make a new request"), (-3601, "begins on .*set the clock")],
)
def test_certificate_out_of_its_time_says_what_to_do(federation, seconds, words):
    kit = federation.approve("ward")
    membership = kit.signed.membership
    with pytest.raises(MembershipError, match=words):
        verify_certificate(
            kit.certificate,
            ca_certificate=membership.ca_certificate,
            uri=format_member_uri("heart", "site", name="ward"),
            key_digest=membership.entries[-1].tls_key_digest,
            serves=False,
            now=NOW + seconds,
        )


def test_name_of_a_host_is_certified(tmp_path):
    key, ca_key = create_key(tmp_path / "key"), create_key(tmp_path / "ca")
    ca = create_ca_certificate("heart", ca_key, now=NOW)
    data = issue_certificate(
        ca,
        ca_key,
        uri="fedtrain:heart/coordinator/co",
        public_bytes=get_public_bytes(key),
        address="train.example.org:7443",
        now=NOW,
        days=1,
    )
    names = x509.load_der_x509_certificate(data).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert names.value.get_values_for_type(x509.DNSName) == ["train.example.org"]


def test_file_that_is_no_certificate_is_refused(tmp_path):
    (tmp_path / "tls.crt").write_text("nothing")
    with pytest.raises(SiteError, match="no certificate in PEM"):
        load_certificate(tmp_path / "tls.crt")


def test_key_is_never_overwritten(tmp_path):
    create_key(tmp_path / "tls.key")
    before = (tmp_path / "tls.key").read_bytes()
    with pytest.raises(SiteError, match="exists and is kept"):
        create_key(tmp_path / "tls.key")
    assert (tmp_path / "tls.key").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["tls.key"]


def test_serial_numbers_differ(federation):
    assert find(federation, "co").serial_number != find(federation, "ward").serial_number


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PRIVATE KEY-----\n"])
def test_file_that_is_no_key_is_refused(tmp_path, content):
    (tmp_path / "tls.key").touch(mode=0o600)
    (tmp_path / "tls.key").write_bytes(content)
    with pytest.raises(SiteError, match="no unencrypted private key"):
        load_key(tmp_path / "tls.key")


def test_public_key_of_another_curve_is_refused():
    public = ec.generate_private_key(ec.SECP384R1()).public_key()
    with pytest.raises(MembershipError, match="not of curve P-256"):
        load_public_bytes(get_public_bytes(public))

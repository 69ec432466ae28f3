"""TLS keys, the federation's certificate authority, and the certificates that it issues.

A certificate says who its holder is in one URI, `fedtrain:FEDERATION/ROLE/NAME`, and no more; that
the holder still belongs is in the membership, so that there is no revocation list. Coordinators
may only serve with theirs, all others may only dial.

References:
    RFC 5280 (X.509 profile: basic constraints, key usage, key identifiers), RFC 5480 (P-256 keys).
"""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedtrain.durable import read_small_file
from fedtrain.errors import ConfigError, SiteError
from fedtrain.membership.faults import MembershipError
from fedtrain.membership.files import write_new_file
from fedtrain.membership.names import find_ip, parse_address

Key = ec.EllipticCurvePrivateKey
CERTIFICATE_DAYS: Final = 397
CA_DAYS: Final = 3652
# A certificate holds a little before it was made: clocks of members may lag behind the root's.
_EARLIER: Final = timedelta(hours=1)


def create_key(path: Path) -> Key:
    """Make a fresh P-256 key and write its file.

    Raises:
        SiteError: The file exists, or cannot be written.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_new_file(path, content)
    return key


def load_key(path: Path) -> Key:
    """Read a P-256 key.

    Raises:
        SiteError: It is missing, others can read it, or it is no P-256 key.
    """
    content = read_small_file(path, forbidden=0o077)
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: it is encrypted
        raise SiteError(f"{path} is no unencrypted private key in PEM; restore it") from error
    if not isinstance(key, Key) or not isinstance(key.curve, ec.SECP256R1):
        raise SiteError(f"{path} holds no P-256 key; restore it")
    return key


def get_public_bytes(key: Key | ec.EllipticCurvePublicKey) -> bytes:
    """Return the SubjectPublicKeyInfo of a key, DER."""
    public = key.public_key() if isinstance(key, Key) else key
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def load_public_bytes(data: bytes) -> ec.EllipticCurvePublicKey:
    """Return the P-256 key of a SubjectPublicKeyInfo.

    Raises:
        MembershipError: It is none (reason "encoding").
    """
    try:
        key = load_der_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise MembershipError("encoding", "the TLS key of the request is no public key") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise MembershipError("encoding", "the TLS key of the request is not of curve P-256")
    return key


def compute_key_digest(public_bytes: bytes) -> bytes:
    """Return the digest of a SubjectPublicKeyInfo that a membership lists, 32 bytes."""
    return hashlib.sha256(public_bytes).digest()


def get_certified_key(certificate: x509.Certificate) -> bytes:
    """Return the SubjectPublicKeyInfo that a certificate certifies, DER."""
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def format_member_uri(federation: str, role: str, *, name: str) -> str:
    """Return what a certificate says of its holder."""
    return f"fedtrain:{federation}/{role}/{name}"


def create_ca_certificate(federation: str, key: Key, *, now: int) -> bytes:
    """Return the certificate of a federation's authority, signed by itself, DER."""
    name = _make_name(f"fedtrain CA of {federation}"[:64])
    end = _to_time(now) + timedelta(days=CA_DAYS)
    builder = _begin(name, name, key.public_key(), now=now, end=end)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_make_key_usage(signs_certificates=True), critical=True)
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER)


def issue_certificate(
    ca_certificate: bytes,
    ca_key: Key,
    *,
    uri: str,
    public_bytes: bytes,
    address: str | None,
    now: int,
    days: int,
) -> bytes:
    """Return a member's certificate, DER.

    Args:
        ca_certificate: The authority's, DER.
        ca_key: Its key.
        uri: Who the member is, see `format_member_uri`.
        public_bytes: SubjectPublicKeyInfo of the member's TLS key, DER.
        address: "host:port" of a coordinator, which may serve; None for all others, who may not.
        now: Unix seconds.
        days: How long it holds; it ends with the authority's at the latest.

    Raises:
        ConfigError: The authority's own certificate has ended.
    """
    ca = x509.load_der_x509_certificate(ca_certificate)
    if _to_time(now) >= ca.not_valid_after_utc:
        raise ConfigError(
            f"the federation's authority ended on {ca.not_valid_after_utc:%Y-%m-%d}; make a new"
            " federation, or set this machine's clock"
        )
    key = load_public_bytes(public_bytes)
    end = min(_to_time(now) + timedelta(days=days), ca.not_valid_after_utc)
    builder = _begin(_make_name(uri.rpartition("/")[2]), ca.subject, key, now=now, end=end)
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri)]
    usage = ExtendedKeyUsageOID.CLIENT_AUTH
    if address is not None:
        names.append(_make_host(parse_address(address)[0]))
        usage = ExtendedKeyUsageOID.SERVER_AUTH
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    for extension, critical in (
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_make_key_usage(signs_certificates=False), True),
        (x509.ExtendedKeyUsage([usage]), False),
        (x509.SubjectAlternativeName(names), False),
        (authority, False),
    ):
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(ca_key, SHA256()).public_bytes(Encoding.DER)


def verify_certificate(
    data: bytes, *, ca_certificate: bytes, uri: str, key_digest: bytes, serves: bool, now: int
) -> x509.Certificate:
    """Return a member's certificate if it is what the membership says.

    Args:
        data: The certificate, DER.
        ca_certificate: The authority's in the membership, DER.
        uri: Who the member is.
        key_digest: Of its TLS key, in the membership.
        serves: Whether it is a coordinator's.
        now: Unix seconds.

    Raises:
        MembershipError: Another authority issued it, it has ended or not begun, or it is another
            member's, key's or role's (reason "certificate").
    """
    try:
        found = x509.load_der_x509_certificate(data)
        authority = x509.load_der_x509_certificate(ca_certificate)
        found.verify_directly_issued_by(authority)
        is_named = _list_uris(found) == [uri] and _list_usages(found) == [_get_usage(serves)]
        digest = compute_key_digest(get_certified_key(found))
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound) as error:
        raise _refuse("is not one that the federation's authority issued; ask its root") from error
    if not is_named or digest != key_digest:
        raise _refuse(f"is not for {uri} with the TLS key that the root lists; ask for a new kit")
    check_times(found, now=now)
    return found


def check_times(certificate: x509.Certificate, *, now: int) -> None:
    """Raise if a certificate has ended or not begun.

    Raises:
        MembershipError: So it is (reason "certificate").
    """
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if _to_time(now) > end:
        raise _refuse(f"ended on {end:%Y-%m-%d %H:%M} UTC; make a new request for the root")
    if _to_time(now) < begin:
        raise _refuse(
            f"begins on {begin:%Y-%m-%d %H:%M} UTC and this machine's clock says"
            f" {_to_time(now):%Y-%m-%d %H:%M}; set the clock"
        )


def to_pem(certificate: bytes) -> bytes:
    """Return a certificate in PEM."""
    return x509.load_der_x509_certificate(certificate).public_bytes(Encoding.PEM)


def load_certificate(path: Path) -> x509.Certificate:
    """Read a certificate in PEM.

    Raises:
        SiteError: It is missing or no certificate.
    """
    try:
        return x509.load_pem_x509_certificate(read_small_file(path))
    except ValueError as error:
        raise SiteError(f"{path} is no certificate in PEM; join with the kit again") from error


def _begin(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    *,
    now: int,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_to_time(now) - _EARLIER)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _make_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _make_host(host: str) -> x509.GeneralName:
    number = find_ip(host)
    return x509.DNSName(host) if number is None else x509.IPAddress(number)


def _make_key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _list_uris(certificate: x509.Certificate) -> list[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def _list_usages(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def _get_usage(serves: bool) -> x509.ObjectIdentifier:
    return ExtendedKeyUsageOID.SERVER_AUTH if serves else ExtendedKeyUsageOID.CLIENT_AUTH


def _to_time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _refuse(text: str) -> MembershipError:
    return MembershipError("certificate", f"the certificate {text}")

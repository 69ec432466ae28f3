"""Who makes a call: the holder of a certificate, by the membership as it is now.

Guarantees:
    * A certificate that is not of the federation's authority, has ended, has another name, role or
      key than the membership lists, or whose holder was revoked, ends a call before it begins: in
      connections that are open, too.
"""

import time
from dataclasses import dataclass
from typing import Final

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fedtrain.link.faults import IdentityError, RevokedError
from fedtrain.membership.certificates import format_member_uri, verify_certificate
from fedtrain.membership.faults import MembershipError
from fedtrain.membership.membership import find_member
from fedtrain.membership.records import SignedMembership

_TLS_VERSION: Final = b"TLSv1.3"


@dataclass(frozen=True)
class Peer:
    """Who makes a call, as the membership says.

    Attributes:
        name: The member's.
        role: One of `fedtrain.membership.records.ROLES`.
    """

    name: str
    role: str


def read_peer(
    context: grpc.ServicerContext, signed: SignedMembership, *, now: int | None = None
) -> Peer:
    """Return who makes a call.

    Args:
        context: The call's.
        signed: The newest membership.
        now: Unix seconds; None reads the clock.

    Raises:
        IdentityError: The connection is no TLS 1.3, or its certificate is not what the membership
            says of its holder.
        RevokedError: The holder is not in the membership.
    """
    properties = {name: list(values) for name, values in context.auth_context().items()}
    certificates = properties.get("x509_pem_cert", [])
    versions = properties.get("ssl_tls_version", [_TLS_VERSION])  # older gRPCs do not say
    if len(certificates) != 1 or versions != [_TLS_VERSION]:
        raise IdentityError("the caller shows no certificate over TLS 1.3")
    try:
        certificate = x509.load_pem_x509_certificate(bytes(certificates[0]))
    except ValueError as error:
        raise IdentityError("the caller's certificate cannot be read") from error
    return identify(certificate, signed, now=int(time.time()) if now is None else now)


def identify(certificate: x509.Certificate, signed: SignedMembership, *, now: int) -> Peer:
    """Return the member whom a certificate is of, by a membership.

    Raises:
        IdentityError: It is not what the membership says of its holder.
        RevokedError: The holder is not in the membership.
    """
    membership = signed.membership
    name = _read_name(certificate, membership.federation)
    entry = find_member(membership, name)
    if entry is None:
        raise RevokedError(
            f"{name!r} is not in version {membership.version} of {membership.federation!r}; it was"
            " revoked"
        )
    try:
        verify_certificate(
            certificate.public_bytes(Encoding.DER),
            ca_certificate=membership.ca_certificate,
            uri=format_member_uri(membership.federation, entry.role, name=entry.name),
            key_digest=entry.tls_key_digest,
            serves=False,
            now=now,
        )
    except MembershipError as error:
        raise IdentityError(f"{name!r}: {error}") from error
    return Peer(entry.name, entry.role)


def _read_name(certificate: x509.Certificate, federation: str) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, ValueError) as error:
        raise IdentityError("the caller's certificate names no member") from error
    prefix, _, name = uris[0].rpartition("/") if len(uris) == 1 else ("", "", "")
    if not prefix.startswith(f"fedtrain:{federation}/"):
        raise IdentityError(f"the caller's certificate names no member of {federation!r}")
    return name

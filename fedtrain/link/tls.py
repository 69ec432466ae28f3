"""Mutual TLS 1.3 between members of a federation: a coordinator serves, all others dial.

Both ends hold certificates of the federation's authority, but it is the membership, signed by the
root, that says who belongs. Who dials compares the coordinator's key with the one in its pinned
membership, and pins the certificate; who serves looks up the caller at each call, in
`fedtrain.link.peers`.

Guarantees:
    * There is no plaintext, no TLS before 1.3 and no peer without a certificate: a server that
      would take one of them refuses to serve, see `check_server`.
    * A channel reaches no other than the holder of the coordinator's key, whatever the network, the
      proxy or another member does.

References:
    RFC 8446 (TLS 1.3), RFC 5280, section 6 (validation of a path).
"""

import ssl
import time
from pathlib import Path
from typing import Final

import grpc
from cryptography import x509

from fedtrain.durable import read_small_file
from fedtrain.errors import SiteError
from fedtrain.link.contract import LARGEST_MESSAGE
from fedtrain.link.faults import IdentityError, TransportError, UnlistedKeyError
from fedtrain.link.handshake import Handshake, offer_old_tls, shake_hands
from fedtrain.link.peers import Peer, read_peer
from fedtrain.link.suites import check_suites
from fedtrain.membership.certificates import (
    check_times,
    compute_key_digest,
    format_member_uri,
    get_certified_key,
    to_pem,
    verify_certificate,
)
from fedtrain.membership.faults import MembershipError
from fedtrain.membership.files import TLS_CERTIFICATE_FILE, TLS_KEY_FILE
from fedtrain.membership.member import Member, load_member
from fedtrain.membership.records import COORDINATOR

__all__ = [
    "Peer",
    "check_server",
    "make_server_credentials",
    "make_server_options",
    "open_channel",
    "read_peer",
]
Options = list[tuple[str, int | str]]
_HANDSHAKE_MS: Final = 10_000
_KEEPALIVE_MS: Final = 20_000
_IDLE_MS: Final = 120_000
_STREAMS: Final = 32  # calls of one connection at a time
_METADATA_BYTES: Final = 16_384
_MESSAGES: Final[Options] = [
    ("grpc.max_receive_message_length", LARGEST_MESSAGE),
    ("grpc.max_send_message_length", LARGEST_MESSAGE),
    ("grpc.max_metadata_size", _METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", _METADATA_BYTES),
    ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", _KEEPALIVE_MS // 2),
    ("grpc.http2.ping_timeout_ms", _KEEPALIVE_MS // 2),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),  # as many as it takes, while a poll waits
]


def make_server_credentials(folder: Path) -> grpc.ServerCredentials:
    """Return the credentials of a coordinator, which take members' certificates only.

    Raises:
        TransportError: TLS 1.2 could not be refused, see `fedtrain.link.suites`.
        SiteError: The folder is no coordinator's, or the member was revoked or has another key.
        MembershipError: The certificate has ended, or its membership does not hold.
    """
    check_suites()
    member = _load_own(folder)
    if member.role != COORDINATOR:
        raise SiteError(f"{folder} is of a {member.role}; only a coordinator serves")
    return grpc.ssl_server_credentials(
        [_read_pair(folder)],
        root_certificates=to_pem(member.signed.membership.ca_certificate),
        require_client_auth=True,
    )


def make_server_options() -> Options:
    """Return the options of a server whose silent, slow or greedy peers hold little for long."""
    return [
        *_MESSAGES,
        ("grpc.so_reuseport", 0),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
        ("grpc.max_connection_idle_ms", _IDLE_MS),
        ("grpc.max_concurrent_streams", _STREAMS),
        ("grpc.http2.min_ping_interval_without_data_ms", _KEEPALIVE_MS // 4),
    ]


def check_server(folder: Path, address: str, *, listen: str | None = None) -> None:
    """Raise unless a server that has started is this coordinator's, and refuses what it must.

    Args:
        folder: The coordinator's.
        address: "host:port" that members dial.
        listen: "host:port" that it listens on, dialled instead where given.

    Raises:
        TransportError: Another server answers there, or this one takes TLS 1.2, or peers without a
            certificate; it must not go on serving.
        UnavailableError: It does not answer.
    """
    where = _make_dialable(listen or address)
    member = load_member(folder)
    shaken = shake_hands(where, _make_context(member))
    if get_certified_key(x509.load_der_x509_certificate(shaken.certificate)) != get_certified_key(
        member.certificate
    ):
        raise TransportError(f"another coordinator listens on {where}; stop it first")
    if not shaken.refusal:
        raise TransportError(f"{where} takes peers without a certificate; it must not serve")
    if offer_old_tls(where):
        raise TransportError(
            f"{where} takes TLS 1.2; it must not serve: install the grpcio that this release names"
        )


def open_channel(
    folder: Path, address: str, *, proxy: str | None = None, for_membership: bool = False
) -> grpc.Channel:
    """Return a channel to the coordinator, after a handshake that showed that it is the one.

    The channel is good for as long as the coordinator has the same certificate; whoever has lost it
    opens another, and does not only call again.

    Args:
        folder: A member's.
        address: "host:port"; any that leads to the coordinator, as its key is what counts.
        proxy: "host:port" of a proxy that allows CONNECT; None dials directly.
        for_membership: Whether to take a coordinator's certificate with a key that the pinned
            membership does not list: it may have been renewed, and only the coordinator can hand
            out the membership that lists it. Use such a channel for `GetMembership` alone.

    Raises:
        SiteError: The folder cannot be used: not joined, revoked.
        MembershipError: Its own certificate has ended, or its membership does not hold.
        UnavailableError: The coordinator does not answer.
        IdentityError: Whoever answers is not the coordinator, or does not take this member.
        UnlistedKeyError: It may be, but its key is not the one that the pinned membership lists.
        TransportError: TLS 1.2 could not be refused.
    """
    check_suites()
    member = load_member(folder)
    check_times(member.certificate, now=int(time.time()))
    context = _make_context(member)
    context.load_cert_chain(folder / TLS_CERTIFICATE_FILE, folder / TLS_KEY_FILE)
    shaken = shake_hands(address, context, proxy=proxy)
    certificate = _check_coordinator(member, shaken, takes_any_key=for_membership)
    if shaken.refusal:
        raise IdentityError(
            f"{address} does not take this member's certificate ({shaken.refusal}); was it renewed,"
            " or is a clock wrong?"
        )
    key, chain = _read_pair(folder)
    credentials = grpc.ssl_channel_credentials(to_pem(shaken.certificate), key, chain)
    return grpc.secure_channel(address, credentials, _make_options(certificate, proxy))


def _load_own(folder: Path) -> Member:
    member = load_member(folder)
    entry = member.entry
    if entry is None:
        raise SiteError(
            f"{member.name!r} is not in version {member.signed.membership.version} of"
            f" {member.signed.membership.federation!r}: it was revoked; ask the federation's root"
        )
    digest = compute_key_digest(get_certified_key(member.certificate))
    if (entry.role, entry.tls_key_digest) != (member.role, digest):
        raise SiteError(f"{folder}: the membership lists another TLS key; join with the newest kit")
    check_times(member.certificate, now=int(time.time()))
    return member


def _read_pair(folder: Path) -> tuple[bytes, bytes]:
    key = read_small_file(folder / TLS_KEY_FILE, forbidden=0o077)
    return key, read_small_file(folder / TLS_CERTIFICATE_FILE)


def _make_context(member: Member) -> ssl.SSLContext:
    """Return what verifies that a certificate is of the federation's authority, for a server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Who serves is told by name and key in the membership; the host may be reached by any name.
    context.check_hostname = False
    context.load_verify_locations(cadata=member.signed.membership.ca_certificate)
    return context


def _check_coordinator(
    member: Member, shaken: Handshake, *, takes_any_key: bool
) -> x509.Certificate:
    """Return the certificate that a handshake showed, if it is the coordinator's."""
    membership = member.signed.membership
    entry = next((one for one in membership.entries if one.role == COORDINATOR), None)
    if entry is None:
        raise IdentityError(
            f"version {membership.version} of {membership.federation!r} lists no coordinator"
        )
    own = compute_key_digest(get_certified_key(x509.load_der_x509_certificate(shaken.certificate)))
    try:
        certificate = verify_certificate(
            shaken.certificate,
            ca_certificate=membership.ca_certificate,
            uri=format_member_uri(membership.federation, COORDINATOR, name=entry.name),
            key_digest=own,
            serves=True,
            now=int(time.time()),
        )
    except MembershipError as error:
        raise IdentityError(f"who answers is not {entry.name!r}: {error}") from error
    if own != entry.tls_key_digest and not takes_any_key:
        raise UnlistedKeyError(
            f"{entry.name!r} has another TLS key than version {membership.version} lists; it was"
            " renewed, and a newer membership says so, or this is not the coordinator"
        )
    return certificate


def _make_options(certificate: x509.Certificate, proxy: str | None) -> Options:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    hosts = [
        *names.get_values_for_type(x509.DNSName),
        *map(str, names.get_values_for_type(x509.IPAddress)),
    ]
    if not hosts:
        raise IdentityError("the coordinator's certificate names no host; ask its root for a kit")
    options: Options = [
        *_MESSAGES,
        ("grpc.enable_retries", 0),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 1000),
        ("grpc.max_reconnect_backoff_ms", 5000),
        # The certificate is pinned; its own host name only satisfies gRPC, however it is reached.
        ("grpc.ssl_target_name_override", hosts[0]),
        ("grpc.default_authority", f"[{hosts[0]}]" if ":" in hosts[0] else hosts[0]),
    ]
    if proxy is None:
        return [*options, ("grpc.enable_http_proxy", 0)]
    return [*options, ("grpc.http_proxy", f"http://{proxy}")]


def _make_dialable(listen: str) -> str:
    host, _, port = listen.rpartition(":")
    return f"127.0.0.1:{port}" if host in ("0.0.0.0", "[::]", "") else listen  # noqa: S104

"""TLS handshakes made apart from gRPC, which says little of why one failed, and can pin no key."""

import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from fedtrain.link.faults import IdentityError, TransportError, UnavailableError
from fedtrain.membership.names import parse_address

SECONDS: Final = 10.0
ALPN: Final = "h2"
_LONGEST_ANSWER: Final = 8192
_ALERT: Final = 21  # the type of a TLS record, RFC 8446, section 5.1
_HANDSHAKE: Final = 22


@dataclass(frozen=True)
class Handshake:
    """What a TLS 1.3 handshake showed.

    Attributes:
        certificate: The other end's, DER.
        refusal: Why the other end went away afterwards, e.g. for this end's certificate; "" where
            it went on.
    """

    certificate: bytes
    refusal: str


def shake_hands(address: str, context: ssl.SSLContext, *, proxy: str | None = None) -> Handshake:
    """Make a TLS handshake and wait for the first bytes of HTTP/2.

    Args:
        address: "host:port".
        context: Of a client; its certificate is shown, if it has one.
        proxy: "host:port" that is asked to CONNECT; None dials directly.

    Raises:
        UnavailableError: Nothing answers there, or no TLS 1.3.
        IdentityError: The other end's certificate does not hold.
    """
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols([ALPN])
    with connect(address, proxy=proxy) as raw:
        try:
            secured = context.wrap_socket(raw, server_hostname=parse_address(address)[0])
        except ssl.SSLCertVerificationError as error:
            raise IdentityError(
                f"the certificate of {address} does not hold: {error.verify_message}; is it this"
                " federation's coordinator, and are the clocks right?"
            ) from error
        except OSError as error:
            raise UnavailableError(
                f"{address} made no TLS 1.3 handshake ({_name(error)}); is it this federation's"
                " coordinator, with nothing between that opens TLS?"
            ) from error
        with secured:
            certificate = secured.getpeercert(binary_form=True) or b""
            return Handshake(certificate, _read_refusal(secured))


def offer_old_tls(address: str) -> bool:
    """Say whether an address takes TLS 1.2 or older, with any suite and without any certificate.

    Raises:
        UnavailableError: Nothing answers there.
        TransportError: The answer is none of TLS; nothing can be said.
    """
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = _make_old_context().wrap_bio(incoming, outgoing)
    with suppress(ssl.SSLWantReadError):  # it waits for an answer, and what it says is in outgoing
        client.do_handshake()
    with connect(address, proxy=None) as raw:
        try:
            raw.sendall(outgoing.read())
            answer = raw.recv(1)
        except ConnectionError:
            return False
        except OSError as error:
            raise TransportError(f"{address} does not answer TLS ({_name(error)})") from error
    if answer not in (b"", bytes([_ALERT]), bytes([_HANDSHAKE])):
        raise TransportError(f"{address} answers TLS with byte 0x{answer.hex()}")
    return answer == bytes([_HANDSHAKE])


def connect(address: str, *, proxy: str | None) -> socket.socket:
    """Return a connection, through a proxy where one is named.

    Raises:
        UnavailableError: It cannot be made.
    """
    where = proxy or address
    try:
        raw = socket.create_connection(parse_address(where), timeout=SECONDS)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        raise UnavailableError(f"{where} does not answer ({_name(error)})") from error
    if proxy is not None:
        try:
            _ask_proxy(raw, address, proxy)
        except BaseException:
            raw.close()
            raise
    return raw


def _ask_proxy(raw: socket.socket, address: str, proxy: str) -> None:
    try:
        raw.sendall(f"CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode("ascii"))
        answer = b""
        while not answer.endswith(b"\r\n\r\n") and len(answer) < _LONGEST_ANSWER:
            piece = raw.recv(1)
            if not piece:
                break
            answer += piece
    except OSError as error:
        raise UnavailableError(f"the proxy {proxy} does not answer ({_name(error)})") from error
    status = answer.partition(b"\r\n")[0].split(b" ")
    if len(status) < 2 or status[1] != b"200":
        said = answer.partition(b"\r\n")[0][:80].decode("ascii", "replace")
        raise UnavailableError(f"the proxy {proxy} does not allow CONNECT to {address}: {said!r}")


def _read_refusal(secured: ssl.SSLSocket) -> str:
    """Return why the other end went away: in TLS 1.3 it judges a certificate afterwards."""
    try:
        return "" if secured.recv(1) else "it closed the connection"
    except OSError as error:
        return _name(error)


def _make_old_context() -> ssl.SSLContext:
    """Return what offers everything that is older than TLS 1.3."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.set_alpn_protocols([ALPN])
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


def _name(error: OSError) -> str:
    reason = getattr(error, "reason", None) or error.strerror or str(error) or "timed out"
    return str(reason).lower().replace("_", " ")

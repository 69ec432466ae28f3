"""A member's request to join: made where its keys are, signed with both of them.

The private keys never leave the folder. The root's owner compares the fingerprint with what the
applicant reads out; it covers name, role, address and both public keys.
"""

from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.hashes import SHA256

from fedtrain.durable import read_small_file
from fedtrain.errors import ConfigError
from fedtrain.membership.certificates import (
    Key,
    create_key,
    get_public_bytes,
    load_key,
    load_public_bytes,
)
from fedtrain.membership.faults import MembershipError
from fedtrain.membership.files import (
    IDENTITY_FILE,
    NEXT_TLS_KEY_FILE,
    REQUEST_FILE,
    TLS_CERTIFICATE_FILE,
    TLS_KEY_FILE,
    locking,
    make_folder,
    write_file,
)
from fedtrain.membership.names import check_name, parse_address
from fedtrain.membership.records import COORDINATOR, ROLES, JoinClaim, JoinRequest
from fedtrain.secagg.codec import decode, encode
from fedtrain.secagg.faults import MessageError
from fedtrain.secagg.files import create_identity, load_identity
from fedtrain.secagg.keys import compute_digest, frame
from fedtrain.secagg.roster import Identity, is_signed

_LABEL: Final = "join-request"
_TLS_LABEL: Final = "join-request-tls"
FINGERPRINT_BYTES: Final = 20


def create_request(folder: Path, name: str, role: str, address: str = "") -> JoinRequest:
    """Make what is missing of a member's keys, and its request.

    In a folder that has a certificate it is a renewal: a new TLS key, the same identity. The old
    key serves until the new certificate is installed.

    Args:
        folder: The member's; it is made where it is missing.
        name: The member's name.
        role: One of `ROLES`.
        address: "host:port" under which sites find a coordinator; empty for others.

    Returns:
        The request; the same one again where it was made before and not answered yet.

    Raises:
        ConfigError: A value is impossible, or the folder is another member's.
        SiteError: The folder cannot be used.

    Guarantees:
        * No existing key is overwritten.
    """
    _check_values(name, role, address=address)
    make_folder(folder)
    with locking(folder):
        pending = _load_own(folder, name, role)
        identity_path = folder / IDENTITY_FILE
        has_identity = identity_path.exists()
        identity = load_identity(identity_path) if has_identity else create_identity(identity_path)
        is_renewal = (folder / TLS_CERTIFICATE_FILE).exists()
        path = folder / (NEXT_TLS_KEY_FILE if is_renewal else TLS_KEY_FILE)
        key = load_key(path) if path.exists() else create_key(path)
        addresses = (address,) if address else ()
        claim = JoinClaim(name, role, addresses, identity.public_key, get_public_bytes(key))
        if pending is not None and pending.claim == claim:
            return pending
        request = sign_claim(claim, identity, tls_key=key)
        write_file(folder / REQUEST_FILE, encode(request))
    return request


def sign_claim(claim: JoinClaim, identity: Identity, *, tls_key: Key) -> JoinRequest:
    """Sign a claim with both of its keys."""
    content = encode(claim)
    signature = identity.sign(_LABEL, content)
    return JoinRequest(claim, signature, tls_key.sign(frame(_TLS_LABEL, content), ECDSA(SHA256())))


def verify_request(data: bytes) -> JoinRequest:
    """Return a request whose signatures hold: the applicant has both private keys.

    Raises:
        MembershipError: The bytes are no request, or were changed.
    """
    try:
        request = decode(data, JoinRequest)
        _check_values(request.name, request.role, address="".join(request.claim.address))
    except (MessageError, ConfigError) as error:
        raise MembershipError(
            "encoding", f"no request to join ({error}); ask for the file again"
        ) from error
    content = encode(request.claim)
    try:
        key = load_public_bytes(request.claim.tls_public_key)
        key.verify(request.tls_signature, frame(_TLS_LABEL, content), ECDSA(SHA256()))
    except InvalidSignature as error:
        raise _refuse_signature(request.name) from error
    if not is_signed(request.claim.public_key, request.signature, _LABEL, content):
        raise _refuse_signature(request.name)
    return request


def load_request(path: Path) -> JoinRequest:
    """Read a request.

    Raises:
        SiteError: The file cannot be read.
        MembershipError: It is no request, or was changed.
    """
    try:
        return verify_request(read_small_file(path))
    except MembershipError as error:
        raise MembershipError(error.reason, f"{path}: {error}") from error


def compute_fingerprint(request: JoinRequest) -> str:
    """Return what applicant and root compare: 40 hex digits in groups of 4."""
    return format_fingerprint(compute_digest("join-fingerprint", encode(request.claim)))


def compute_root_fingerprint(root_public_key: bytes) -> str:
    """Return what members compare before they pin a root: 40 hex digits in groups of 4."""
    return format_fingerprint(compute_digest("root-fingerprint", root_public_key))


def format_fingerprint(digest: bytes) -> str:
    """Return the first 20 bytes of a digest for people to read out."""
    text = digest[:FINGERPRINT_BYTES].hex()
    return " ".join(text[at : at + 4] for at in range(0, len(text), 4))


def is_same_fingerprint(one: str, other: str) -> bool:
    """Return whether two fingerprints are the same but for spaces, colons and case."""
    flat = ["".join(text.split()).replace(":", "").lower() for text in (one, other)]
    return flat[0] == flat[1]


def _check_values(name: str, role: str, *, address: str) -> None:
    check_name(name)
    if role not in ROLES:
        raise ConfigError(f"role {role[:80]!r} is none of {', '.join(ROLES)}; choose one")
    if bool(address) != (role == COORDINATOR):
        raise ConfigError(
            f"role {role} with address {address[:80]!r}: a coordinator has one, others have none"
        )
    if address:
        parse_address(address)


def _load_own(folder: Path, name: str, role: str) -> JoinRequest | None:
    """Return the request that the folder holds, if any."""
    path = folder / REQUEST_FILE
    if not path.exists():
        return None
    request = load_request(path)
    if (request.name, request.role) != (name, role):
        raise ConfigError(
            f"{folder} is the folder of {request.role} {request.name!r}, not of {role} {name!r};"
            " name another folder"
        )
    return request


def _refuse_signature(name: str) -> MembershipError:
    return MembershipError(
        "signature",
        f"the request of {name!r} is not signed with its own keys: it was changed on the way; ask"
        " for the file again and compare the fingerprint",
    )

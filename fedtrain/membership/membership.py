"""The membership: who belongs, in a version that the federation's root signed."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from fedtrain.durable import read_small_file
from fedtrain.errors import ConfigError
from fedtrain.membership.faults import MembershipError
from fedtrain.membership.files import write_file
from fedtrain.membership.names import check_name, parse_address
from fedtrain.membership.records import (
    COORDINATOR,
    ROLES,
    SITE_ROLE,
    MemberEntry,
    Membership,
    SignedMembership,
)
from fedtrain.secagg.codec import decode, encode
from fedtrain.secagg.faults import MessageError, RefusalError
from fedtrain.secagg.roster import Identity, is_signed, make_roster, sign_roster, verify_roster

_LABEL: Final = "membership"


def sign_membership(
    root: Identity,
    federation: str,
    *,
    version: int,
    issued: int,
    entries: Iterable[MemberEntry],
    ca_certificate: bytes,
    coordinator: str,
) -> SignedMembership:
    """Make and sign a membership with its roster, as the federation's root.

    Args:
        root: The root's key.
        federation: Name of the federation.
        version: Of membership and roster.
        issued: Unix seconds.
        entries: The members, in any order.
        ca_certificate: DER, of the authority that issues the members' certificates.
        coordinator: "host:port" that members dial.

    Raises:
        MembershipError: The members contradict each other (reason "content").
    """
    ordered = tuple(sorted(entries, key=lambda entry: entry.name))
    _check_entries(ordered)
    roster = make_roster(federation, version, keys=list_site_keys(ordered))
    membership = Membership(
        federation,
        version,
        issued,
        entries=ordered,
        ca_certificate=ca_certificate,
        coordinator=coordinator,
        roster=sign_roster(roster, root),
    )
    _check_content(membership, root.public_key)
    return SignedMembership(membership, root.sign(_LABEL, encode(membership)))


def verify_membership(data: bytes, root_public_key: bytes) -> SignedMembership:
    """Return a membership that the root signed.

    Args:
        data: Its canonical bytes.
        root_public_key: The pinned root's, 32 bytes.

    Raises:
        MembershipError: The bytes are no membership, another root signed them or no one, or what
            it signed contradicts itself (reasons "encoding", "signature", "content").

    Guarantees:
        * Names, identities and TLS keys are each listed once, roles are known, at most one member
          is a coordinator, and the roster of the same version lists exactly the sites' keys.
    """
    try:
        signed = decode(data, SignedMembership)
    except MessageError as error:
        raise MembershipError("encoding", f"no membership ({error}); get it again") from error
    check_signed(signed, root_public_key)
    return signed


def check_signed(signed: SignedMembership, root_public_key: bytes) -> None:
    """Raise unless the root signed a membership, as `verify_membership` does."""
    membership = signed.membership
    if not is_signed(root_public_key, signed.signature, _LABEL, encode(membership)):
        raise MembershipError(
            "signature",
            f"membership of {membership.federation!r} is not signed by the pinned root"
            f" {root_public_key.hex()[:16]}; get it from the federation's root",
        )
    _check_content(membership, root_public_key)


def verify_newer_membership(
    signed: SignedMembership, root_public_key: bytes, *, pinned: SignedMembership
) -> Membership:
    """Return a newer membership of the same federation, which may take the pinned one's place.

    Raises:
        MembershipError: The root did not sign it, it is another federation's or has another
            authority, it is older, or has the pinned one's version and another content.
    """
    check_signed(signed, root_public_key)
    new, old = signed.membership, pinned.membership
    if new.federation != old.federation or new.ca_certificate != old.ca_certificate:
        raise MembershipError(
            "federation",
            f"membership of {new.federation!r} does not follow that of {old.federation!r}: another"
            " federation, or another certificate authority; keep the pinned one",
        )
    if new.version < old.version:
        raise MembershipError(
            "older",
            f"membership version {new.version} is older than the pinned version {old.version};"
            " keep the pinned one",
        )
    if new.version == old.version:
        reason = "older" if new == old else "conflict"
        state = "pinned already" if new == old else "pinned with another content: ask the root"
        raise MembershipError(reason, f"membership version {new.version} is {state}")
    return new


def find_member(membership: Membership, name: str) -> MemberEntry | None:
    """Return the entry of a member, or None where it does not belong (any more)."""
    return next((entry for entry in membership.entries if entry.name == name), None)


def load_membership(path: Path, root_public_key: bytes) -> SignedMembership:
    """Read a membership that the root signed.

    Raises:
        SiteError: The file cannot be read.
        MembershipError: It does not hold, see `verify_membership`.
    """
    return verify_membership(read_small_file(path), root_public_key)


def save_membership(path: Path, signed: SignedMembership) -> None:
    """Write a membership, whole or not at all.

    Raises:
        SiteError: The file cannot be written.
    """
    write_file(path, encode(signed))


def list_site_keys(entries: Iterable[MemberEntry]) -> dict[str, bytes]:
    """Return the Ed25519 public key of each site among members."""
    return {entry.name: entry.public_key for entry in entries if entry.role == SITE_ROLE}


def _check_content(membership: Membership, root_public_key: bytes) -> None:
    try:
        check_name(membership.federation, "federation")
        parse_address(membership.coordinator)
        _check_entries(membership.entries)
        roster = verify_roster(membership.roster, root_public_key)
    except (ConfigError, RefusalError) as error:
        raise MembershipError("content", f"membership does not hold: {error}") from error
    keys = list_site_keys(membership.entries)
    due = make_roster(membership.federation, membership.version, keys=keys)
    if roster != due:
        raise MembershipError(
            "content",
            f"membership version {membership.version} comes with a roster of version"
            f" {roster.version} that does not list its sites; ask the root for both anew",
        )


def _check_entries(entries: tuple[MemberEntry, ...]) -> None:
    """Raise unless members are in order and share nothing; names differ in more than case."""
    names = [entry.name for entry in entries]
    count = len(names)
    has_repeats = names != sorted(names) or any(
        len(set(values)) < count
        for values in (
            [check_name(name).casefold() for name in names],
            [entry.public_key for entry in entries],
            [entry.tls_key_digest for entry in entries],
        )
    )
    if has_repeats:
        raise MembershipError(
            "content", "a name, identity or TLS key is listed twice, or names are out of order"
        )
    for entry in entries:
        if entry.role not in ROLES:
            raise MembershipError("content", f"{entry.name!r} has no role of {', '.join(ROLES)}")
    if sum(entry.role == COORDINATOR for entry in entries) > 1:
        raise MembershipError("content", "more than one coordinator is listed")

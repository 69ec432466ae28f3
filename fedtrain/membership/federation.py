"""The root's folder: who was approved, by whose key; kept offline.

FEDERATION/
  root.key root.pub   signs memberships; whoever has it decides who belongs
  ca.key ca.crt       signs certificates
  membership.bin      the newest, for the coordinator to hand on
  federation.toml     how long certificates hold
  approvals.jsonl     every decision, one line each
  kits/NAME.kit       what each member was handed last
"""

import shutil
import tempfile
import time
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import tomli_w
from cryptography import x509

from fedtrain.durable import read_small_file, sync_folder
from fedtrain.errors import ConfigError, SiteError
from fedtrain.membership.admission import check_approval, get_member, make_entry
from fedtrain.membership.approvals import Action, Approval, append_approval
from fedtrain.membership.certificates import (
    CERTIFICATE_DAYS,
    create_ca_certificate,
    create_key,
    format_member_uri,
    issue_certificate,
    load_key,
    to_pem,
)
from fedtrain.membership.files import (
    APPROVALS_FILE,
    CA_FILE,
    CA_KEY_FILE,
    FEDERATION_FILE,
    MEMBERSHIP_FILE,
    ROOT_FILE,
    ROOT_KEY_FILE,
    locking,
    write_file,
    write_public_key,
)
from fedtrain.membership.membership import (
    find_member,
    load_membership,
    save_membership,
    sign_membership,
)
from fedtrain.membership.names import check_name, parse_address
from fedtrain.membership.records import (
    JoinRequest,
    Kit,
    MemberEntry,
    Membership,
    SignedMembership,
)
from fedtrain.membership.requests import compute_fingerprint, verify_request
from fedtrain.secagg.codec import encode
from fedtrain.secagg.files import create_identity, load_identity
from fedtrain.secagg.roster import Identity

MOST_DAYS: Final = 825


def create_federation(
    folder: Path, name: str, coordinator: str, *, now: int | None = None
) -> SignedMembership:
    """Make the root of a federation without members.

    Args:
        folder: Must not exist.
        name: The federation's name.
        coordinator: "host:port" that members will dial.
        now: Unix seconds; default: this machine's clock.

    Returns:
        The first membership.

    Raises:
        ConfigError: A value is impossible, or the folder exists.
        SiteError: The folder cannot be made.

    Guarantees:
        * The folder is there whole or not at all.
    """
    check_name(name, "federation")
    parse_address(coordinator)
    if folder.exists():
        raise ConfigError(f"{folder} exists and is kept; name a folder that does not")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise SiteError(
            f"{folder} cannot be made ({error.strerror}); name a folder that this user may make"
        ) from error
    try:
        signed = _fill(partial, name, coordinator, now=_read_clock(now))
        partial.rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise SiteError(f"{folder} cannot be made ({error.strerror}); free it") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return signed


def load_federation(folder: Path) -> SignedMembership:
    """Read the newest membership in the root's folder.

    Raises:
        SiteError: The folder is no federation's, or a file cannot be read.
        MembershipError: The membership does not hold.
    """
    root = load_identity(folder / ROOT_KEY_FILE)
    return load_membership(folder / MEMBERSHIP_FILE, root.public_key)


def approve(
    folder: Path,
    request: JoinRequest,
    *,
    replace: bool = False,
    now: int | None = None,
    days: int | None = None,
) -> Kit:
    """Take a member in, or renew its TLS key, and return its kit.

    The same request again gives a new certificate and changes no membership.

    Args:
        folder: The root's.
        request: The member's; its fingerprint was compared.
        replace: Let another identity, or another role, take a known name.
        now: Unix seconds; default: this machine's clock.
        days: How long the certificate holds; default: `federation.toml`'s.

    Raises:
        MembershipError: The request does not hold, or what it asks is taken ("known-name").
        ConfigError: The number of days is impossible.
        SiteError: The folder cannot be used.
    """
    request = verify_request(encode(request))
    seconds = _read_clock(now)
    root = load_identity(folder / ROOT_KEY_FILE)
    with locking(folder):
        signed = load_membership(folder / MEMBERSHIP_FILE, root.public_key)
        membership = signed.membership
        check_approval(membership, request, replace=replace)
        certificate = _issue(folder, membership, request, now=seconds, days=days)
        entry = make_entry(request)
        address = "".join(request.claim.address) or membership.coordinator
        kept = [one for one in membership.entries if one.name != request.name]
        if find_member(membership, entry.name) != entry or address != membership.coordinator:
            signed = _sign_next(membership, root, [*kept, entry], address=address, now=seconds)
        end = x509.load_der_x509_certificate(certificate).not_valid_after_utc
        _record(
            folder,
            entry,
            "approved",
            signed=signed,
            now=seconds,
            fingerprint=compute_fingerprint(request),
            end=int(end.timestamp()),
        )
        save_membership(folder / MEMBERSHIP_FILE, signed)
    return Kit(root.public_key, signed, certificate)


def revoke(folder: Path, name: str, *, now: int | None = None) -> SignedMembership:
    """Strike a member off; the coordinator cuts it when it has the new membership.

    Args:
        folder: The root's.
        name: The member.
        now: Unix seconds; default: this machine's clock.

    Returns:
        The membership without it.

    Raises:
        MembershipError: There is no such member (reason "not-member").
        SiteError: The folder cannot be used.
    """
    seconds = _read_clock(now)
    root = load_identity(folder / ROOT_KEY_FILE)
    with locking(folder):
        membership = load_membership(folder / MEMBERSHIP_FILE, root.public_key).membership
        entry = get_member(membership, name)
        kept = [one for one in membership.entries if one.name != name]
        signed = _sign_next(membership, root, kept, address=membership.coordinator, now=seconds)
        _record(folder, entry, "revoked", signed=signed, now=seconds)
        save_membership(folder / MEMBERSHIP_FILE, signed)
    return signed


def _fill(folder: Path, name: str, coordinator: str, *, now: int) -> SignedMembership:
    root = create_identity(folder / ROOT_KEY_FILE)
    ca_certificate = create_ca_certificate(name, create_key(folder / CA_KEY_FILE), now=now)
    write_public_key(folder / ROOT_FILE, root.public_key)
    write_file(folder / CA_FILE, to_pem(ca_certificate))
    settings = tomli_w.dumps({"federation": name, "certificate_days": CERTIFICATE_DAYS})
    write_file(folder / FEDERATION_FILE, settings.encode())
    write_file(folder / APPROVALS_FILE, b"")
    signed = sign_membership(
        root,
        name,
        version=1,
        issued=now,
        entries=(),
        ca_certificate=ca_certificate,
        coordinator=coordinator,
    )
    save_membership(folder / MEMBERSHIP_FILE, signed)
    return signed


def _sign_next(
    membership: Membership,
    root: Identity,
    entries: Iterable[MemberEntry],
    *,
    address: str,
    now: int,
) -> SignedMembership:
    return sign_membership(
        root,
        membership.federation,
        version=membership.version + 1,
        issued=now,
        entries=entries,
        ca_certificate=membership.ca_certificate,
        coordinator=address,
    )


def _issue(
    folder: Path,
    membership: Membership,
    request: JoinRequest,
    *,
    now: int,
    days: int | None,
) -> bytes:
    claim = request.claim
    return issue_certificate(
        membership.ca_certificate,
        load_key(folder / CA_KEY_FILE),
        uri=format_member_uri(membership.federation, claim.role, name=claim.name),
        public_bytes=claim.tls_public_key,
        address=claim.address[0] if claim.address else None,
        now=now,
        days=_load_days(folder / FEDERATION_FILE) if days is None else _check_days(days, "days"),
    )


def _load_days(path: Path) -> int:
    try:
        tree = tomllib.loads(read_small_file(path).decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SiteError(f"{path} is no TOML ({error}); write certificate_days = 397") from error
    return _check_days(tree.get("certificate_days"), f"{path}: certificate_days")


def _check_days(days: object, where: str) -> int:
    if not isinstance(days, int) or isinstance(days, bool) or not 1 <= days <= MOST_DAYS:
        raise ConfigError(f"{where} = {days!r} is not a whole number from 1 to {MOST_DAYS}")
    return days


def _record(
    folder: Path,
    entry: MemberEntry,
    action: Action,
    *,
    signed: SignedMembership,
    now: int,
    fingerprint: str = "",
    end: int = 0,
) -> None:
    approval = Approval(
        time=now,
        action=action,
        name=entry.name,
        role=entry.role,
        version=signed.membership.version,
        fingerprint=fingerprint,
        public_key=entry.public_key.hex(),
        tls_key_digest=entry.tls_key_digest.hex(),
        certificate_end=end,
    )
    append_approval(folder / APPROVALS_FILE, approval)


def _read_clock(now: int | None) -> int:
    return int(time.time()) if now is None else now

"""A member's kit: checked against its own keys, then pinned."""

import time
from pathlib import Path

from fedtrain.durable import read_small_file, sync_folder
from fedtrain.errors import SiteError
from fedtrain.membership.adoption import save_pinned
from fedtrain.membership.certificates import (
    compute_key_digest,
    format_member_uri,
    get_public_bytes,
    load_key,
    to_pem,
    verify_certificate,
)
from fedtrain.membership.faults import MembershipError
from fedtrain.membership.files import (
    CA_FILE,
    IDENTITY_FILE,
    MEMBERSHIP_FILE,
    NEXT_TLS_KEY_FILE,
    REQUEST_FILE,
    ROOT_FILE,
    TLS_CERTIFICATE_FILE,
    TLS_KEY_FILE,
    Hook,
    locking,
    write_file,
    write_public_key,
)
from fedtrain.membership.membership import (
    check_signed,
    find_member,
    load_membership,
    verify_newer_membership,
)
from fedtrain.membership.records import COORDINATOR, Kit, MemberEntry, SignedMembership
from fedtrain.membership.requests import (
    compute_root_fingerprint,
    is_same_fingerprint,
    load_request,
)
from fedtrain.secagg.codec import decode, encode
from fedtrain.secagg.faults import MessageError
from fedtrain.secagg.files import load_identity, load_root_key


def load_kit(path: Path) -> Kit:
    """Read a kit; `install_kit` checks it.

    Raises:
        SiteError: The file cannot be read.
        MembershipError: It is no kit (reason "encoding").
    """
    try:
        return decode(read_small_file(path), Kit)
    except MessageError as error:
        raise MembershipError(
            "encoding", f"{path} is no kit ({error}); ask the federation's root for it again"
        ) from error


def save_kit(path: Path, kit: Kit) -> None:
    """Write a kit; nothing in it is secret.

    Raises:
        SiteError: The file cannot be written.
    """
    write_file(path, encode(kit))


def install_kit(
    folder: Path,
    kit: Kit,
    *,
    root_fingerprint: str | None = None,
    now: int | None = None,
    on_step: Hook | None = None,
) -> SignedMembership:
    """Pin root, membership and certificate, once they fit this folder's own keys.

    Args:
        folder: The member's, with its request.
        kit: From the federation's root.
        root_fingerprint: What the root's owner read out; None to pin whatever the kit brings,
            where none is pinned yet.
        now: Unix seconds; default: this machine's clock.
        on_step: Called with the name of each file that was written; for tests of crashes.

    Returns:
        The membership that is pinned now: the kit's, or a newer one that was pinned before.

    Raises:
        MembershipError: A part of the kit does not hold; nothing was changed.
        SiteError: The folder has no request, or cannot be written.

    Guarantees:
        * A pinned root is never exchanged, and a pinned membership only for a newer one.
        * A process that is killed in the middle leaves what the same call again completes.
    """
    request = load_request(folder / REQUEST_FILE)
    with locking(folder):
        _check_root(folder, kit.root_public_key, root_fingerprint)
        check_signed(kit.signed, kit.root_public_key)
        signed = _choose_newest(folder, kit)
        membership = signed.membership
        entry = find_member(membership, request.name)
        if entry is None or entry.role != request.role:
            raise MembershipError(
                "not-member",
                f"{request.role} {request.name!r} is not in version {membership.version} of"
                f" {membership.federation!r}; ask its root for this member's own kit",
            )
        key_path = _find_key(folder, entry)
        verify_certificate(
            kit.certificate,
            ca_certificate=membership.ca_certificate,
            uri=format_member_uri(membership.federation, entry.role, name=entry.name),
            key_digest=entry.tls_key_digest,
            serves=entry.role == COORDINATOR,
            now=int(time.time()) if now is None else now,
        )
        _save(folder, kit, signed, key_path=key_path, on_step=on_step or (lambda _: None))
    return signed


def _check_root(folder: Path, root: bytes, root_fingerprint: str | None) -> None:
    path = folder / ROOT_FILE
    found = compute_root_fingerprint(root)
    if path.exists() and load_root_key(path) != root:
        raise MembershipError(
            "root",
            f"the kit comes from another root ({found}) than the pinned one"
            f" ({compute_root_fingerprint(load_root_key(path))}); ask the federation which holds",
        )
    if root_fingerprint is not None and not is_same_fingerprint(root_fingerprint, found):
        raise MembershipError(
            "root",
            f"the kit's root has fingerprint {found}, not {root_fingerprint[:80]}; do not use this"
            " kit, and tell the federation's root",
        )


def _choose_newest(folder: Path, kit: Kit) -> SignedMembership:
    """Return the kit's membership, or the pinned one where that is as new."""
    path = folder / MEMBERSHIP_FILE
    if not path.exists():
        return kit.signed
    pinned = load_membership(path, kit.root_public_key)
    try:
        verify_newer_membership(kit.signed, kit.root_public_key, pinned=pinned)
    except MembershipError as error:
        if error.reason != "older":
            raise
        return pinned
    return kit.signed


def _find_key(folder: Path, entry: MemberEntry) -> Path:
    """Return which TLS key of the folder the membership lists."""
    if load_identity(folder / IDENTITY_FILE).public_key != entry.public_key:
        raise MembershipError(
            "own-key",
            f"the root lists another identity of {entry.name!r} than this folder's; ask it to"
            " approve this folder's request",
        )
    for name in (NEXT_TLS_KEY_FILE, TLS_KEY_FILE):
        path = folder / name
        if path.exists():
            digest = compute_key_digest(get_public_bytes(load_key(path)))
            if digest == entry.tls_key_digest:
                return path
    raise MembershipError(
        "own-key",
        f"the root lists another TLS key of {entry.name!r} than this folder's; ask it to approve"
        f" this folder's {REQUEST_FILE}",
    )


def _save(
    folder: Path, kit: Kit, signed: SignedMembership, *, key_path: Path, on_step: Hook
) -> None:
    if not (folder / ROOT_FILE).exists():
        write_public_key(folder / ROOT_FILE, kit.root_public_key)
        on_step(ROOT_FILE)
    write_file(folder / CA_FILE, to_pem(signed.membership.ca_certificate))
    on_step(CA_FILE)
    if key_path.name != TLS_KEY_FILE:
        _promote(key_path, folder / TLS_KEY_FILE)
        on_step(TLS_KEY_FILE)
    write_file(folder / TLS_CERTIFICATE_FILE, to_pem(kit.certificate))
    on_step(TLS_CERTIFICATE_FILE)
    save_pinned(folder, signed, on_step=on_step)


def _promote(key_path: Path, path: Path) -> None:
    try:
        key_path.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise SiteError(f"{path} cannot be written ({error.strerror}); join again") from error

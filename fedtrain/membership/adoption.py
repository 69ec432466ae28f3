"""A newer membership takes the pinned one's place: by the root's signature, never an older one."""

from pathlib import Path

from fedtrain.errors import SiteError
from fedtrain.membership.files import (
    MEMBERSHIP_FILE,
    REQUEST_FILE,
    ROOT_FILE,
    ROSTER_FILE,
    ROSTERS_FOLDER,
    Hook,
    locking,
    make_folder,
    write_file,
)
from fedtrain.membership.membership import load_membership, verify_newer_membership
from fedtrain.membership.records import SITE_ROLE, Membership, SignedMembership
from fedtrain.membership.requests import load_request
from fedtrain.secagg.codec import encode
from fedtrain.secagg.files import load_root_key
from fedtrain.secagg.messages import SignedRoster
from fedtrain.secagg.roster import compute_roster_digest


def adopt_membership(
    folder: Path, signed: SignedMembership, *, on_step: Hook | None = None
) -> Membership:
    """Pin a newer membership; at a site its roster, too.

    A membership without this member is adopted as well: it says that the member was revoked.

    Args:
        folder: A member's that has joined.
        signed: From whomever: it is checked against the pinned root.
        on_step: Called with the name of each file that was written; for tests of crashes.

    Raises:
        MembershipError: It is not signed by the pinned root, older, or another federation's.
        SiteError: The folder has joined no federation, or cannot be written.

    Guarantees:
        * A process that is killed in the middle leaves the old membership; the same call again
          completes the new one. Every roster that a site ever pinned is kept.
    """
    root = load_pinned_root(folder)
    with locking(folder):
        pinned = load_membership(folder / MEMBERSHIP_FILE, root)
        membership = verify_newer_membership(signed, root, pinned=pinned)
        save_pinned(folder, signed, on_step=on_step)
    return membership


def load_pinned_root(folder: Path) -> bytes:
    """Return the root's key that a member's folder pins.

    Raises:
        SiteError: The folder has joined no federation.
    """
    path = folder / ROOT_FILE
    if not folder.is_dir():
        raise SiteError(f"{folder} is no folder; name the one that has the keys")
    if not path.exists():
        raise SiteError(
            f"{folder} has joined no federation; hand its {REQUEST_FILE} to the federation's root"
            " and join with the kit that comes back"
        )
    return load_root_key(path)


def save_pinned(folder: Path, signed: SignedMembership, *, on_step: Hook | None = None) -> None:
    """Write a checked membership into a member's folder, the membership itself at last."""
    roster = signed.membership.roster
    if load_request(folder / REQUEST_FILE).role == SITE_ROLE:
        path = get_roster_path(folder, roster)
        make_folder(path.parent)
        _save(path, encode(roster), on_step)
        _save(folder / ROSTER_FILE, encode(roster), on_step)
    _save(folder / MEMBERSHIP_FILE, encode(signed), on_step)


def get_roster_path(folder: Path, roster: SignedRoster) -> Path:
    """Return where a site keeps a roster, by the digest that rounds carry."""
    return folder / ROSTERS_FOLDER / f"{compute_roster_digest(roster).hex()}.bin"


def _save(path: Path, content: bytes, on_step: Hook | None) -> None:
    write_file(path, content)
    if on_step is not None:
        on_step(path.name)

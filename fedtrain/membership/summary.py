"""What a folder's membership says, for people and for programs."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from rich.console import Group, RenderableType

from fedtrain.membership.adoption import load_pinned_root
from fedtrain.membership.approvals import Approval, load_approvals
from fedtrain.membership.certificates import (
    compute_key_digest,
    get_certified_key,
    load_certificate,
)
from fedtrain.membership.files import APPROVALS_FILE, MEMBERSHIP_FILE, TLS_CERTIFICATE_FILE
from fedtrain.membership.membership import load_membership
from fedtrain.membership.records import MemberEntry
from fedtrain.membership.requests import compute_root_fingerprint
from fedtrain.report.tables import NOTHING, make_facts, make_table

_SOON: Final = 30
_DAY: Final = 86_400
_TEXTS: Final = 2
Tree = dict[str, Any]


def build_summary(folder: Path) -> Tree:
    """Return what the root's or a member's folder says of the federation.

    Certificates' ends and requests' fingerprints are known to the root alone; a member knows the
    end of its own.

    Raises:
        SiteError: The folder has no membership, or a file cannot be read.
        MembershipError: The membership does not hold.
    """
    root = load_pinned_root(folder)
    membership = load_membership(folder / MEMBERSHIP_FILE, root).membership
    authority = x509.load_der_x509_certificate(membership.ca_certificate)
    approvals = {one.tls_key_digest: one for one in _load_decisions(folder)}
    own = _load_own_end(folder)
    members = [
        _describe(entry, approvals.get(entry.tls_key_digest.hex()), own=own)
        for entry in membership.entries
    ]
    return {
        "federation": membership.federation,
        "version": membership.version,
        "issued": membership.issued,
        "coordinator": membership.coordinator,
        "root_public_key": root.hex(),
        "root_fingerprint": compute_root_fingerprint(root),
        "ca_certificate_end": int(authority.not_valid_after_utc.timestamp()),
        "members": members,
    }


def render_summary(tree: Tree, *, now: int) -> RenderableType:
    """Return a summary as a list of facts and a table of members.

    Args:
        tree: From `build_summary`.
        now: Unix seconds; certificates that end soon are marked.
    """
    facts = make_facts(
        (
            ("federation", f"{tree['federation']}, version {tree['version']}"),
            ("issued", format_day(tree["issued"])),
            ("coordinator", tree["coordinator"]),
            ("root", tree["root_fingerprint"]),
            ("authority", f"ends on {format_day(tree['ca_certificate_end'])}"),
        )
    )
    members = tree["members"]
    is_root = any(member["fingerprint"] for member in members)
    rows = [
        (
            member["name"],
            member["role"],
            member["fingerprint"] or (NOTHING if is_root else member["public_key"][:16]),
            format_end(member["certificate_end"], now=now),
        )
        for member in members
    ]
    shown = "request's fingerprint" if is_root else "identity"
    headers = ("member", "role", shown, "certificate ends")
    return Group(facts, make_table(headers, rows, texts=_TEXTS))


def format_day(seconds: int) -> str:
    """Return a day in UTC, such as 2026-01-31."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"


def format_end(seconds: int | None, *, now: int) -> str:
    """Return the day on which a certificate ends, and how soon that is."""
    if seconds is None:
        return NOTHING
    left = (seconds - now) // _DAY
    if left < 0:
        return f"{format_day(seconds)} ENDED"
    return f"{format_day(seconds)} in {left} d" if left < _SOON else format_day(seconds)


def _load_decisions(folder: Path) -> list[Approval]:
    """Return the approvals, in the root's folder; a revoked key may come back by another."""
    path = folder / APPROVALS_FILE
    decisions = load_approvals(path) if path.exists() else []
    return [one for one in decisions if one.action == "approved"]


def _load_own_end(folder: Path) -> dict[str, int]:
    path = folder / TLS_CERTIFICATE_FILE
    if not path.exists():
        return {}
    certificate = load_certificate(path)
    digest = compute_key_digest(get_certified_key(certificate)).hex()
    return {digest: int(certificate.not_valid_after_utc.timestamp())}


def _describe(entry: MemberEntry, approval: Approval | None, *, own: dict[str, int]) -> Tree:
    digest = entry.tls_key_digest.hex()
    return {
        "name": entry.name,
        "role": entry.role,
        "public_key": entry.public_key.hex(),
        "tls_key_digest": digest,
        "fingerprint": approval.fingerprint if approval else None,
        "certificate_end": approval.certificate_end if approval else own.get(digest),
    }

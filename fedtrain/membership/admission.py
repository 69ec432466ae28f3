"""Who may be taken in: an applicant beside the members that there are."""

from collections.abc import Iterable

from fedtrain.membership.certificates import compute_key_digest
from fedtrain.membership.faults import MembershipError
from fedtrain.membership.membership import find_member
from fedtrain.membership.records import COORDINATOR, JoinRequest, MemberEntry, Membership
from fedtrain.membership.requests import compute_fingerprint, is_same_fingerprint


def get_member(membership: Membership, name: str) -> MemberEntry:
    """Return the entry of a member.

    Raises:
        MembershipError: There is none (reason "not-member").
    """
    entry = find_member(membership, name)
    if entry is None:
        known = ", ".join(one.name for one in membership.entries) or "nobody yet"
        raise MembershipError(
            "not-member",
            f"{name[:80]!r} is no member of {membership.federation!r}; members: {known[:200]}",
        )
    return entry


def make_entry(request: JoinRequest) -> MemberEntry:
    """Return what a membership would say of an applicant."""
    claim = request.claim
    digest = compute_key_digest(claim.tls_public_key)
    return MemberEntry(claim.name, claim.role, claim.public_key, tls_key_digest=digest)


def check_approval(membership: Membership, request: JoinRequest, *, replace: bool) -> str:
    """Return what an approval would do: "joins", "renews its TLS key", ... in words.

    Raises:
        MembershipError: The name, identity, TLS key or role is taken (reason "known-name").
    """
    entry = make_entry(request)
    others = [one for one in membership.entries if one.name != entry.name]
    _check_others(others, entry)
    known = find_member(membership, entry.name)
    if known is None:
        return "joins"
    if known == entry:
        return "gets a new certificate for the same keys"
    if (known.public_key, known.role) == (entry.public_key, entry.role):
        return "renews its TLS key"
    if not replace:
        raise MembershipError(
            "known-name",
            f"{entry.name!r} is a member already: {_describe(known)}; this request is for"
            f" {_describe(entry)}; where that is right (a lost key, a new role), add --replace",
        )
    return f"REPLACES {known.name}, {_describe(known)}, by identity {entry.public_key.hex()[:16]}"


def check_fingerprint(request: JoinRequest, fingerprint: str) -> None:
    """Raise unless a request has the fingerprint that its applicant read out.

    Raises:
        MembershipError: It has another (reason "signature").
    """
    found = compute_fingerprint(request)
    if not is_same_fingerprint(found, fingerprint):
        raise MembershipError(
            "signature",
            f"the request has fingerprint {found}, not {fingerprint[:80]}: it was exchanged on the"
            " way; ask for the file again",
        )


def _describe(entry: MemberEntry) -> str:
    return f"{entry.role} with identity {entry.public_key.hex()[:16]}"


def _check_others(others: Iterable[MemberEntry], entry: MemberEntry) -> None:
    for one in others:
        cure = "choose another name and make new keys"
        if one.role == entry.role == COORDINATOR:
            taken, cure = "the federation's one place of coordinator", f"revoke {one.name} first"
        elif one.name.casefold() == entry.name.casefold():
            taken = "the same name but for case"
        elif one.public_key == entry.public_key or one.tls_key_digest == entry.tls_key_digest:
            taken = "one of the same keys"
        else:
            continue
        raise MembershipError("known-name", f"{one.name!r} has {taken}; {cure}")

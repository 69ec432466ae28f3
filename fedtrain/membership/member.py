"""Who the owner of a folder is: what a member knows of itself once it has joined."""

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from fedtrain.errors import SiteError
from fedtrain.membership.adoption import load_pinned_root
from fedtrain.membership.certificates import (
    get_certified_key,
    get_public_bytes,
    load_certificate,
    load_key,
)
from fedtrain.membership.files import (
    MEMBERSHIP_FILE,
    REQUEST_FILE,
    TLS_CERTIFICATE_FILE,
    TLS_KEY_FILE,
)
from fedtrain.membership.membership import find_member, load_membership
from fedtrain.membership.records import MemberEntry, SignedMembership
from fedtrain.membership.requests import load_request


@dataclass(frozen=True)
class Member:
    """A member's folder, read.

    Attributes:
        name: Its name.
        role: Its role.
        root_public_key: The pinned root's.
        signed: The pinned membership.
        certificate: Its own; its times are not checked here, see `certificates.check_times`.
    """

    name: str
    role: str
    root_public_key: bytes
    signed: SignedMembership
    certificate: x509.Certificate

    @property
    def entry(self) -> MemberEntry | None:
        """Its entry in the pinned membership, or None: it was revoked."""
        return find_member(self.signed.membership, self.name)


def load_member(folder: Path) -> Member:
    """Read the folder of a member that has joined.

    Raises:
        SiteError: It has not joined, or TLS key and certificate do not belong together.
        MembershipError: The pinned membership does not hold.
    """
    root = load_pinned_root(folder)
    request = load_request(folder / REQUEST_FILE)
    signed = load_membership(folder / MEMBERSHIP_FILE, root)
    certificate = load_certificate(folder / TLS_CERTIFICATE_FILE)
    if get_public_bytes(load_key(folder / TLS_KEY_FILE)) != get_certified_key(certificate):
        raise SiteError(
            f"{folder}: {TLS_KEY_FILE} and {TLS_CERTIFICATE_FILE} do not belong together: an"
            " installation was interrupted; join with the same kit again"
        )
    return Member(request.name, request.role, root, signed, certificate)

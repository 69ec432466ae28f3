"""What members and root hand to each other, as records with limits; nothing in them is secret."""

from dataclasses import dataclass
from typing import Final

from fedtrain.secagg.codec import Blob, Items, Message, Record, Text, Whole, declare
from fedtrain.secagg.messages import MAX_SITES, SITE, SignedRoster

SITE_ROLE: Final = "site"
COORDINATOR: Final = "coordinator"
ADMIN: Final = "admin"
RESEARCHER: Final = "researcher"
AUDITOR: Final = "auditor"
ROLES: Final = (SITE_ROLE, COORDINATOR, ADMIN, RESEARCHER, AUDITOR)
MAX_MEMBERS: Final = MAX_SITES
MAX_CERTIFICATE_BYTES: Final = 4096
SPKI_BYTES: Final = 91  # of a P-256 key, its point not compressed

_NAME: Final = SITE
_ROLE: Final = Text(16)
_ADDRESS: Final = Text(262)
_BYTES_32: Final = Blob(32)
_SIGNATURE: Final = Blob(64)
_CERTIFICATE: Final = Blob(MAX_CERTIFICATE_BYTES, exact=False)


@dataclass(frozen=True)
class JoinClaim(Message):
    """What an applicant says of itself.

    Attributes:
        name: The member's name.
        role: One of `ROLES`.
        address: "host:port" of a coordinator, in a tuple; empty for others.
        public_key: Ed25519, the long-term identity.
        tls_public_key: P-256 SubjectPublicKeyInfo, DER.
    """

    TAG = 32
    name: str = declare(_NAME)
    role: str = declare(_ROLE)
    address: tuple[str, ...] = declare(Items(_ADDRESS, 1))
    public_key: bytes = declare(_BYTES_32)
    tls_public_key: bytes = declare(Blob(SPKI_BYTES))


_CLAIM: Final = Record(JoinClaim)


@dataclass(frozen=True)
class JoinRequest(Message):
    """A claim, signed with both of its keys: `signature` Ed25519, `tls_signature` ECDSA in DER."""

    TAG = 33
    claim: JoinClaim = declare(_CLAIM)  # noqa: RUF009 - a field specifier
    signature: bytes = declare(_SIGNATURE)
    tls_signature: bytes = declare(Blob(72, exact=False))

    @property
    def name(self) -> str:
        """The applicant's name."""
        return self.claim.name

    @property
    def role(self) -> str:
        """The applicant's role."""
        return self.claim.role


@dataclass(frozen=True)
class MemberEntry(Message):
    """One member.

    Attributes:
        name: The member's name.
        role: One of `ROLES`.
        public_key: Ed25519, the long-term identity.
        tls_key_digest: SHA-256 of the TLS key's SubjectPublicKeyInfo.
    """

    name: str = declare(_NAME)
    role: str = declare(_ROLE)
    public_key: bytes = declare(_BYTES_32)
    tls_key_digest: bytes = declare(_BYTES_32)


_SIGNED_ROSTER: Final = Record(SignedRoster)


@dataclass(frozen=True)
class Membership(Message):
    """Who belongs to the federation now; whoever is not listed does not.

    Attributes:
        federation: Its name.
        version: Larger by one with every change.
        issued: Unix seconds, by the root's clock.
        entries: Members, ordered by name.
        ca_certificate: DER, signs the members' certificates; the same for all versions.
        coordinator: "host:port" that agents and operators dial.
        roster: The sites' keys for secure aggregation, of the same version.
    """

    TAG = 34
    federation: str = declare(_NAME)
    version: int = declare(Whole())
    issued: int = declare(Whole())
    entries: tuple[MemberEntry, ...] = declare(Items(Record(MemberEntry), MAX_MEMBERS))
    ca_certificate: bytes = declare(_CERTIFICATE)
    coordinator: str = declare(_ADDRESS)
    roster: SignedRoster = declare(_SIGNED_ROSTER)  # noqa: RUF009 - a field specifier


_MEMBERSHIP: Final = Record(Membership)


@dataclass(frozen=True)
class SignedMembership(Message):
    """A membership and the signature of the federation's root over it."""

    TAG = 35
    membership: Membership = declare(_MEMBERSHIP)  # noqa: RUF009 - a field specifier
    signature: bytes = declare(_SIGNATURE)


_SIGNED_MEMBERSHIP: Final = Record(SignedMembership)


@dataclass(frozen=True)
class Kit(Message):
    """What the root hands to a member that it approved.

    Attributes:
        root_public_key: Ed25519, to be pinned.
        signed: The membership that lists the member.
        certificate: The member's, DER.
    """

    TAG = 36
    root_public_key: bytes = declare(_BYTES_32)
    signed: SignedMembership = declare(_SIGNED_MEMBERSHIP)  # noqa: RUF009 - a field specifier
    certificate: bytes = declare(_CERTIFICATE)

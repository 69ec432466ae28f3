"""Long-term identities, and the roster that says whose they are.

The coordinator relays keys; only a signature under a key that it does not hold shows that they
were not exchanged on the way. The federation's root signs the roster once, each site pins root
and roster in its kit: the public key infrastructure that Bonawitz et al. 2017 assume against an
active server.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedtrain.errors import ConfigError
from fedtrain.secagg.codec import encode
from fedtrain.secagg.faults import RefusalError
from fedtrain.secagg.keys import compute_digest, derive_key, frame
from fedtrain.secagg.messages import Roster, RosterEntry, SignedRoster

_ROSTER: Final = "roster"


class Identity:
    """A long-term Ed25519 signing key."""

    __slots__ = ("_key",)

    def __init__(self, private_key: bytes) -> None:
        """Take 32 private bytes."""
        self._key = Ed25519PrivateKey.from_private_bytes(private_key)

    @classmethod
    def generate(cls) -> Self:
        """Return a fresh identity from the operating system."""
        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def from_seed(cls, seed: int, *labels: str) -> Self:
        """Return the identity of a seed and labels: for simulations, where it is no secret."""
        secret = seed.to_bytes(32, "big")
        return cls(derive_key(secret, "simulated-identity", *labels, length=32))

    def __repr__(self) -> str:
        return f"Identity({self.public_key.hex()})"

    @property
    def public_key(self) -> bytes:
        """The public key, 32 bytes."""
        return self._key.public_key().public_bytes_raw()

    def to_private_bytes(self) -> bytes:
        """Return the private key for the site's own key file."""
        return self._key.private_bytes_raw()

    def sign(self, label: str, *parts: bytes | str) -> bytes:
        """Return a signature over a label and parts, 64 bytes."""
        return self._key.sign(frame(label, *parts))


def is_signed(public_key: bytes, signature: bytes, label: str, *parts: bytes | str) -> bool:
    """Return whether a signature over label and parts verifies under a public key."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, frame(label, *parts))
    except (InvalidSignature, ValueError):
        return False
    return True


def make_roster(federation: str, version: int, *, keys: Mapping[str, bytes]) -> Roster:
    """Return a roster of site identifiers and their Ed25519 public keys, in canonical order."""
    entries = tuple(RosterEntry(site, keys[site]) for site in sorted(keys))
    return Roster(federation, version, entries)


def sign_roster(roster: Roster, root: Identity) -> SignedRoster:
    """Sign a roster as the federation's root.

    Raises:
        ConfigError: A site or a key is listed twice, or the order is not canonical.
    """
    _check_entries(roster)
    return SignedRoster(roster, root.sign(_ROSTER, encode(roster)))


def verify_roster(signed: SignedRoster, root_public_key: bytes) -> Roster:
    """Return the roster if the root signed it.

    Raises:
        RefusalError: Another root signed it, or no one (reason "roster").
        ConfigError: The root signed a roster with a site or a key twice.
    """
    if not is_signed(root_public_key, signed.signature, _ROSTER, encode(signed.roster)):
        raise RefusalError(
            "roster",
            f"roster of {signed.roster.federation!r} is not signed by the pinned root"
            f" {root_public_key.hex()[:16]}; get it from the federation, not from the coordinator",
        )
    _check_entries(signed.roster)
    return signed.roster


def verify_successor(
    signed: SignedRoster, root_public_key: bytes, *, pinned: SignedRoster
) -> Roster:
    """Return a newer roster of the same federation that may take the pinned one's place.

    Raises:
        RefusalError: It is not signed by the root, not newer, or another federation's.
    """
    roster = verify_roster(signed, root_public_key)
    old = pinned.roster
    if roster.federation != old.federation or roster.version <= old.version:
        raise RefusalError(
            "roster",
            f"roster {roster.federation!r} version {roster.version} does not follow"
            f" {old.federation!r} version {old.version}; keep the pinned one",
        )
    return roster


def compute_roster_digest(signed: SignedRoster) -> bytes:
    """Return the digest that contexts carry, 32 bytes: of the roster, not of the signature."""
    return compute_digest(_ROSTER, encode(signed.roster))


def get_keys(roster: Roster) -> dict[str, bytes]:
    """Return the Ed25519 public key of each site."""
    return {entry.site: entry.public_key for entry in roster.entries}


def _check_entries(roster: Roster) -> None:
    sites = [entry.site for entry in roster.entries]
    keys = {entry.public_key for entry in roster.entries}
    if sites != sorted(set(sites)) or len(keys) != len(sites):
        raise ConfigError(
            f"roster of {roster.federation!r} lists a site or a key twice or out of order;"
            " give each site one entry with a key of its own"
        )


@dataclass(frozen=True)
class PinnedRoster:
    """A roster with the root that is to have signed it.

    Attributes:
        signed: The roster and its signature.
        root_public_key: The root's key.
        simulated: Whether root and identities were made from a run's seed.
    """

    signed: SignedRoster
    root_public_key: bytes
    simulated: bool

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites, ordered."""
        return tuple(entry.site for entry in self.signed.roster.entries)

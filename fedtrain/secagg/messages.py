"""Every message of the protocol, and what a site keeps on disk, as records with limits.

The names U1 to U5 and the round numbers are those of Bonawitz et al. 2017, figure 4: U1 advertised
keys, U2 shared keys, U3 sent a masked vector (the survivors), U4 signed that set, U5 unmasked.
"""

from dataclasses import dataclass
from typing import Final

from fedtrain.secagg.codec import Blob, Items, Message, Record, Text, Whole, declare

MAX_SITES: Final = 10_000
MAX_VECTOR_BYTES: Final = 2**31 - 1
SITE: Final = Text(128)
_SITES: Final = Items(SITE, MAX_SITES)
_BYTES_32: Final = Blob(32)
_SIGNATURE: Final = Blob(64)
SHARE_BYTES: Final = 32
SEED_BYTES: Final = 32
CIPHERTEXT_BYTES: Final = 2 * SHARE_BYTES + 16


@dataclass(frozen=True)
class RosterEntry(Message):
    """A site's long-term key: `public_key` is Ed25519."""

    site: str = declare(SITE)
    public_key: bytes = declare(_BYTES_32)


@dataclass(frozen=True)
class Roster(Message):
    """Who belongs to the federation, ordered by site."""

    TAG = 1
    federation: str = declare(Text(128))
    version: int = declare(Whole())
    entries: tuple[RosterEntry, ...] = declare(Items(Record(RosterEntry), MAX_SITES))


_ROSTER: Final = Record(Roster)


@dataclass(frozen=True)
class SignedRoster(Message):
    """A roster and the signature of the federation's root over it."""

    TAG = 2
    roster: Roster = declare(_ROSTER)  # noqa: RUF009 - a field specifier
    signature: bytes = declare(_SIGNATURE)


@dataclass(frozen=True)
class RoundContext(Message):
    """All that the sites of a round must see alike; its digest is in every key and signature.

    Attributes:
        run: Identifier of the run.
        round: Number of the round in the run.
        attempt: 0, and one more each time that a void round is run again.
        federation: Name in the roster.
        roster_digest: Of the signed roster.
        config_digest: SHA-256 of the run's configuration, the encoding among it.
        model_digest: SHA-256 of the model that is sent out.
        cohort: Sites asked, ordered.
        threshold: Survivors, signatures and (complete graph) shares needed.
        length: Elements of the vector.
        ring_bits: k of the ring Z/2^k.
        neighbours: Of each site in the graph; 0: all others.
    """

    TAG = 3
    federation: str = declare(Text(128))
    run: str = declare(Text(128))
    round: int = declare(Whole())
    attempt: int = declare(Whole(2**16 - 1))
    roster_digest: bytes = declare(_BYTES_32)
    config_digest: bytes = declare(_BYTES_32)
    model_digest: bytes = declare(_BYTES_32)
    cohort: tuple[str, ...] = declare(_SITES)
    threshold: int = declare(Whole(MAX_SITES))
    length: int = declare(Whole(MAX_VECTOR_BYTES))
    ring_bits: int = declare(Whole(32))
    neighbours: int = declare(Whole(MAX_SITES))


@dataclass(frozen=True)
class Advertisement(Message):
    """Round 0, site to coordinator: the round's X25519 keys and a commitment to the self mask."""

    TAG = 4
    site: str = declare(SITE)
    mask_key: bytes = declare(_BYTES_32)
    share_key: bytes = declare(_BYTES_32)
    seed_commitment: bytes = declare(_BYTES_32)
    signature: bytes = declare(_SIGNATURE)


@dataclass(frozen=True)
class AdvertisementList(Message):
    """Round 1, coordinator to sites: the advertisements of U1, ordered by site."""

    TAG = 5
    advertisements: tuple[Advertisement, ...] = declare(Items(Record(Advertisement), MAX_SITES))


@dataclass(frozen=True)
class SharePacket(Message):
    """One dealer's two shares for one recipient.

    Attributes:
        site: The recipient on the way up, the dealer on the way down.
        ciphertext: Seed share and key share, AES-256-GCM.
        seed_commitment: Hash of the seed share, by which a false one is told when it is revealed.
        key_commitment: Hash of the key share.
    """

    site: str = declare(SITE)
    ciphertext: bytes = declare(Blob(CIPHERTEXT_BYTES))
    seed_commitment: bytes = declare(_BYTES_32)
    key_commitment: bytes = declare(_BYTES_32)


_PACKETS: Final = Items(Record(SharePacket), MAX_SITES)


@dataclass(frozen=True)
class EncryptedShares(Message):
    """Round 1, site to coordinator: a packet a neighbour, ordered by recipient.

    `own_commitment` is to the seed share that the site keeps itself.
    """

    TAG = 6
    site: str = declare(SITE)
    transcript: bytes = declare(_BYTES_32)
    own_commitment: bytes = declare(_BYTES_32)
    packets: tuple[SharePacket, ...] = declare(_PACKETS)


@dataclass(frozen=True)
class ShareDelivery(Message):
    """Round 2, coordinator to a site: U2 and the packets for this site, ordered by dealer."""

    TAG = 7
    senders: tuple[str, ...] = declare(_SITES)
    packets: tuple[SharePacket, ...] = declare(_PACKETS)


_WORDS: Final = Blob(MAX_VECTOR_BYTES, exact=False, copied=False)


@dataclass(frozen=True)
class MaskedVector(Message):
    """Round 2, site to coordinator: the masked vector, little-endian, and a signature over it."""

    TAG = 8
    site: str = declare(SITE)
    view: bytes = declare(_BYTES_32)
    words: bytes | memoryview = declare(_WORDS)  # noqa: RUF009 - a field specifier
    signature: bytes = declare(_SIGNATURE)


@dataclass(frozen=True)
class SurvivorSet(Message):
    """Round 3, coordinator to sites: U3, ordered."""

    TAG = 9
    survivors: tuple[str, ...] = declare(_SITES)


@dataclass(frozen=True)
class SurvivorSignature(Message):
    """Round 3, site to coordinator: a signature over U3 and everything before it."""

    TAG = 10
    site: str = declare(SITE)
    signature: bytes = declare(_SIGNATURE)


@dataclass(frozen=True)
class SignatureList(Message):
    """Round 4, coordinator to sites: signatures of U4, ordered by site."""

    TAG = 11
    signatures: tuple[SurvivorSignature, ...] = declare(Items(Record(SurvivorSignature), MAX_SITES))


@dataclass(frozen=True)
class RevealedShare(Message):
    """One share of one dealer."""

    site: str = declare(SITE)
    share: bytes = declare(Blob(SHARE_BYTES))


_REVEALED: Final = Items(Record(RevealedShare), MAX_SITES)


@dataclass(frozen=True)
class Unmasking(Message):
    """Round 4, site to coordinator: seed shares of survivors, key shares of the dropped."""

    TAG = 12
    site: str = declare(SITE)
    view: bytes = declare(_BYTES_32)
    seed_shares: tuple[RevealedShare, ...] = declare(_REVEALED)
    key_shares: tuple[RevealedShare, ...] = declare(_REVEALED)


@dataclass(frozen=True)
class HeldShares(Message):
    """What a site holds of one dealer between masking and unmasking."""

    site: str = declare(SITE)
    seed_share: bytes = declare(Blob(SHARE_BYTES))
    key_share: bytes = declare(Blob(SHARE_BYTES))


_CONTEXT: Final = Record(RoundContext)
_STAGE: Final = Whole(5)


@dataclass(frozen=True)
class SiteRecord(Message):
    """A site's durable state of a run: the last round in which it masked a vector. Secret.

    Attributes:
        stage: 3 masked, 4 signed, 5 unmasked.
        advertised: U1.
        transcript: Digest of context and advertisements.
        senders: U2.
        held: Shares of the neighbours; empty once they are revealed.
        survivors: U3, empty before it is signed.
        unmasking: The encoded `Unmasking`, empty before.
    """

    TAG = 13
    context: RoundContext = declare(_CONTEXT)  # noqa: RUF009 - a field specifier
    stage: int = declare(_STAGE)
    advertised: tuple[str, ...] = declare(_SITES)
    transcript: bytes = declare(_BYTES_32)
    senders: tuple[str, ...] = declare(_SITES)
    held: tuple[HeldShares, ...] = declare(Items(Record(HeldShares), MAX_SITES))
    survivors: tuple[str, ...] = declare(_SITES)
    unmasking: bytes = declare(Blob(2**24, exact=False))


@dataclass(frozen=True)
class AttemptRecord(Message):
    """A site's durable state of a run before it masks: what its next process replays. Secret.

    Attributes:
        context: The round as this site accepted it.
        seed: 32 bytes that all draws of the attempt come from; empty once they are used up.
        listed: The encoded `AdvertisementList` that it answered, empty before.
    """

    TAG = 14
    context: RoundContext = declare(_CONTEXT)  # noqa: RUF009 - a field specifier
    seed: bytes = declare(Blob(SEED_BYTES, exact=False))
    listed: bytes = declare(Blob(2**24, exact=False))

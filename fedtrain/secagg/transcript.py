"""What is written down of a round, and how an auditor checks it against the roster.

A record is a dict of JSON's types; bytes are hexadecimal. It holds nothing secret: signed
advertisements, U2, digests of the masked vectors with their sites' signatures, the survivor set
with its signatures, and the digest of the sum.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from fedtrain.errors import AuditError
from fedtrain.secagg import binding
from fedtrain.secagg.codec import decode, encode
from fedtrain.secagg.faults import VOIDS, MessageError, RefusalError
from fedtrain.secagg.messages import (
    AdvertisementList,
    RoundContext,
    SignatureList,
    SignedRoster,
)
from fedtrain.secagg.policy import compute_least_threshold
from fedtrain.secagg.roster import compute_roster_digest, get_keys, is_signed, verify_roster

_FIELDS: Final = (
    "context",
    "advertisements",
    "senders",
    "vectors",
    "survivors",
    "signatures",
    "sum",
    "void",
)


class RoundTranscript:
    """Grows with the round; `to_record` at any time."""

    def __init__(self, context: RoundContext) -> None:
        self._record: dict[str, Any] = {"context": encode(context).hex(), "vectors": {}}

    def note_advertisements(self, listed: AdvertisementList) -> None:
        """Add the signed keys of U1."""
        self._record["advertisements"] = encode(listed).hex()

    def note_senders(self, senders: tuple[str, ...]) -> None:
        """Add U2."""
        self._record["senders"] = list(senders)

    def note_vector(self, site: str, digest: bytes, signature: bytes) -> None:
        """Add the SHA-256 of a masked vector and its site's signature."""
        self._record["vectors"][site] = [digest.hex(), signature.hex()]

    def note_survivors(self, survivors: tuple[str, ...]) -> None:
        """Add U3."""
        self._record["survivors"] = list(survivors)

    def note_signatures(self, listed: SignatureList) -> None:
        """Add the signatures of U4."""
        self._record["signatures"] = encode(listed).hex()

    def note_sum(self, digest: bytes) -> None:
        """Add the SHA-256 of the sum's words."""
        self._record["sum"] = digest.hex()

    def note_void(self, reason: str) -> None:
        """Add why there is no sum."""
        self._record["void"] = reason

    def to_record(self) -> dict[str, Any]:
        """Return the record, for one line of JSON."""
        return {name: self._record[name] for name in _FIELDS if name in self._record}


def verify_transcript(
    record: Mapping[str, Any],
    roster: SignedRoster,
    root_public_key: bytes,
    *,
    total_digest: bytes | None = None,
) -> RoundContext:
    """Check a round's record: every signature against the roster, every set against the next.

    Args:
        record: One round, as `RoundTranscript.to_record` gave it.
        roster: Signed by the root.
        root_public_key: The federation's.
        total_digest: SHA-256 of the sum's words where the auditor has them.

    Returns:
        The round's context, for the caller to compare run, config and model with.

    Raises:
        AuditError: Something does not hold; the message says what.
    """
    try:
        return _Verifier(record, roster, root_public_key).verify(total_digest)
    except (RefusalError, MessageError) as error:
        raise AuditError(f"transcript: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise AuditError(f"transcript: malformed or incomplete record ({error!r})") from error


class _Verifier:
    def __init__(self, record: Mapping[str, Any], roster: SignedRoster, root: bytes) -> None:
        self._record = record
        self._keys = get_keys(verify_roster(roster, root))
        self._context = decode(bytes.fromhex(record["context"]), RoundContext)
        if self._context.roster_digest != compute_roster_digest(roster):
            raise AuditError("transcript: the round was run under another roster")

    def verify(self, total_digest: bytes | None) -> RoundContext:
        """Walk through the stages as far as the round came."""
        unknown = sorted(set(self._record) - set(_FIELDS))
        if unknown:
            raise AuditError(f"transcript: unknown fields {unknown}")
        self._check_end(total_digest)
        stages: dict[str, Callable[[], None]] = {
            "advertisements": self._check_advertisements,
            "senders": self._check_senders,
            "survivors": self._check_survivors,
            "signatures": self._check_signatures,
        }
        ended = False
        for name, check in stages.items():
            if name not in self._record:
                ended = True
            elif ended:
                raise AuditError(f"transcript: {name} without the stage before")
            else:
                check()
        if ended and "void" not in self._record:
            raise AuditError("transcript: the round ends early without saying why")
        return self._context

    def _check_end(self, total_digest: bytes | None) -> None:
        context, record = self._context, self._record
        binding.check_sites(context.cohort, self._keys)
        least = compute_least_threshold(len(context.cohort))
        if not least <= context.threshold <= len(context.cohort) or len(context.cohort) < 3:
            raise AuditError(
                f"transcript: threshold {context.threshold} of {len(context.cohort)} sites; above"
                " half of at least 3 is needed"
            )
        if ("sum" in record) == ("void" in record):
            raise AuditError("transcript: a round has either a sum or a reason why it is void")
        if "void" in record and record["void"] not in VOIDS:
            raise AuditError(f"transcript: unknown reason {record['void']!r}")
        if total_digest is not None and record.get("sum") != total_digest.hex():
            raise AuditError("transcript: the sum is not the one that was written down")

    def _check_advertisements(self) -> None:
        listed = decode(bytes.fromhex(self._record["advertisements"]), AdvertisementList)
        self._advertised = tuple(one.site for one in listed.advertisements)
        self._check_set("advertisements", self._advertised, self._context.cohort)
        digest = binding.compute_context_digest(self._context)
        for one in listed.advertisements:
            binding.check_advertisement(one, digest, self._keys)
        self._transcript = binding.compute_transcript(self._context, listed)

    def _check_senders(self) -> None:
        self._senders = tuple(self._record["senders"])
        self._check_set("senders", self._senders, self._advertised)
        self._view = binding.compute_view(self._transcript, self._senders)
        for site, (digest, signature) in self._record["vectors"].items():
            binding.check_sites([site], self._senders)
            signed = (self._view, site, bytes.fromhex(digest))
            self._check_signature(site, bytes.fromhex(signature), binding.VECTOR, *signed)

    def _check_survivors(self) -> None:
        self._survivors = tuple(self._record["survivors"])
        self._check_set("survivors", self._survivors, self._senders)
        if set(self._survivors) != set(self._record["vectors"]):
            raise AuditError("transcript: the survivors are not the sites whose vectors arrived")
        self._outcome = binding.compute_outcome(self._view, self._survivors)

    def _check_signatures(self) -> None:
        listed = decode(bytes.fromhex(self._record["signatures"]), SignatureList)
        signers = tuple(one.site for one in listed.signatures)
        self._check_set("signatures", signers, self._survivors)
        for one in listed.signatures:
            signed = (self._outcome, one.site)
            self._check_signature(one.site, one.signature, binding.SURVIVORS, *signed)

    def _check_set(self, name: str, sites: tuple[str, ...], allowed: tuple[str, ...]) -> None:
        binding.check_sites(sites, allowed)
        if len(sites) < self._context.threshold:
            raise AuditError(
                f"transcript: {len(sites)} {name} are below the threshold {self._context.threshold}"
            )

    def _check_signature(
        self, site: str, signature: bytes, label: str, *parts: bytes | str
    ) -> None:
        if not is_signed(self._keys[site], signature, label, *parts):
            raise AuditError(f"transcript: signature of {site!r} ({label}) does not verify")

"""What secure aggregation refuses, and what makes a round void.

    SiteError
    └── UpdateRangeError   an update that does not fit the ring: refused, never clipped
    PeerError
    ├── MessageError       bytes that are no canonical message
    ├── RefusalError       a message that an honest party must not act on
    └── RoundVoidError     the coordinator cannot finish the round; nothing was unmasked

`RefusalError.reason` and `RoundVoidError.reason` are stable names, part of the public interface:
the keys of `REFUSALS` and `VOIDS`, which say what they mean.
"""

from typing import Final

from fedtrain.errors import PeerError, SiteError

REFUSALS: Final = {
    "context": "the context names another config, model, roster, run or ring than the site's own",
    "cohort": "the cohort, or what is left of it, is below the site's minimum",
    "threshold": "the threshold is below the site's minimum or above the cohort",
    "graph": "the graph is not the one that the site's policy computes, or dropouts thin it out",
    "unknown-site": "a site that is not in the roster or not in the cohort",
    "duplicate": "a site or a key listed twice, or a list that is not in order",
    "own-entry": "the site's own entry is missing or is not what it sent",
    "signature": "a signature does not verify",
    "roster": "the roster is not signed by the pinned root, or is older than the pinned one",
    "weak-key": "a public key of low order",
    "share": "a share that does not open, or is not the one its dealer committed to",
    "recipients": "shares from or for other sites than the graph asks for",
    "replay": "a round or an attempt before one that the site took part in",
    "already-masked": "the mask keys of this attempt are used up",
    "already-answered": "the site signed or answered this round already, otherwise",
    "quorum": "fewer signatures of the same survivor set than the threshold",
    "vector": "a masked vector of another length than the context says",
    "out-of-turn": "a message of another stage, another round, or sent twice",
}
VOIDS: Final = {
    "too-few-sites": "fewer sites than the threshold were left",
    "too-few-shares": "fewer shares than the threshold came back",
    "bad-dealer": "a site dealt shares of something else than it committed to",
}


class UpdateRangeError(SiteError):
    """An update does not fit the range that the encoding proves safe.

    Attributes:
        private_count: How many coordinates are out of range; for the site's own log, never sent.
    """

    code = "secagg-update-range"

    def __init__(self, message: str, private_count: int) -> None:
        super().__init__(message)
        self.private_count = private_count


class MessageError(PeerError):
    """Bytes that are not the canonical encoding of the message that was due."""

    code = "secagg-message"


class RefusalError(PeerError):
    """A message that an honest party must not act on.

    Attributes:
        reason: A key of `REFUSALS`.
        suspect: The site whose message it is, where that can be told, else None.
    """

    code = "secagg-refusal"

    def __init__(self, reason: str, message: str, *, suspect: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.suspect = suspect


class RoundVoidError(PeerError):
    """The round has no result, and nothing of it was unmasked.

    Attributes:
        reason: A key of `VOIDS`.
        culprits: Sites at fault, where the protocol can tell.
    """

    code = "secagg-void"

    def __init__(self, reason: str, message: str, *, culprits: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.reason = reason
        self.culprits = culprits

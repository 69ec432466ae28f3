"""What members and root refuse to act on: requests, kits, memberships.

    PeerError
    └── MembershipError   what came from outside this folder does not hold

`MembershipError.reason` is a stable name, part of the public interface: a key of `REASONS`.
"""

from typing import Final

from fedtrain.errors import PeerError

REASONS: Final = {
    "encoding": "the bytes are no canonical record of the kind that was due",
    "signature": "a signature does not verify",
    "content": "what the root signed contradicts itself",
    "federation": "it belongs to another federation",
    "older": "it is older than the pinned one",
    "conflict": "the same version with another content: the root signed twice, or was restored",
    "root": "the root's key is not the pinned one, or not the one whose fingerprint was given",
    "not-member": "the member is not in the membership",
    "own-key": "it is for other keys than this folder's",
    "certificate": "the certificate is not what the membership says, or its time is not now",
    "known-name": "the name, the key or the role is taken",
}


class MembershipError(PeerError):
    """A request, kit or membership that must not be acted on.

    Attributes:
        reason: A key of `REASONS`.
    """

    code = "membership"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

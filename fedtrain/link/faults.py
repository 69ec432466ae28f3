"""What goes wrong on the link.

    PeerError
    ├── ParcelError        bytes that are no canonical parcel
    ├── ContentError       content of another size, digest or place than was said
    ├── ContractError      two releases that cannot work together
    ├── IdentityError      a peer that is not who it must be
    │   ├── RevokedError       a member that does not belong any more
    │   └── UnlistedKeyError   a coordinator whose key the pinned membership does not list (yet)
    ├── RefusedError       the other end refused a call, for good
    └── UnavailableError   the other end cannot be reached, or not now: try again
    OperatorError
    └── TransportError     this end cannot serve or dial as safely as it must, and so does not

`fedtrain.link.status` says them in gRPC's terms. Codes are part of the contract.
"""

from fedtrain.errors import OperatorError, PeerError


class ParcelError(PeerError):
    """Bytes that are not the canonical form of a parcel."""

    code = "link-parcel"


class ContentError(PeerError):
    """Content of another size, digest or place than was said."""

    code = "link-content"


class ContractError(PeerError):
    """The releases at both ends cannot work together."""

    code = "link-contract"


class IdentityError(PeerError):
    """A peer is not who it must be."""

    code = "link-identity"


class RevokedError(IdentityError):
    """A peer does not belong to the federation any more."""

    code = "link-revoked"


class UnlistedKeyError(IdentityError):
    """A coordinator's key is not the one that the pinned membership lists: renewed, or not it."""

    code = "link-unlisted-key"


class RefusedError(PeerError):
    """The other end refused a call, and will refuse it again.

    Attributes:
        reason: Code of the error that it raised, such as "config".
    """

    code = "link-refused"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class UnavailableError(PeerError):
    """The other end cannot be reached or has no room now; the same call may succeed later."""

    code = "link-unavailable"


class TransportError(OperatorError):
    """This end cannot serve or dial as safely as it must."""

    code = "link-transport"

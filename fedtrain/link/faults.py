"""What goes wrong on the link, and how it is told to the other end.

    PeerError
    ├── ParcelError        bytes that are no canonical parcel
    ├── ContentError       content of another size, digest or place than was said
    ├── ContractError      two releases that cannot work together
    ├── IdentityError      a peer that is not who it must be, or not a member any more
    ├── RefusedError       the other end refused a call, for good
    └── UnavailableError   the other end cannot be reached, or not now: try again
    OperatorError
    └── TransportError     this end cannot serve or dial safely, and so does not

`fedtrain.link.status` says them in gRPC's terms.
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
    """A peer is not who it must be, or does not belong to the federation any more."""

    code = "link-identity"


class RefusedError(PeerError):
    """The other end refused a call, and will refuse it again.

    Attributes:
        reason: Public code of what it raised, such as "config"; "" where it named none.
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

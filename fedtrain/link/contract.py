"""What both ends of the link agree on before they exchange anything.

The service itself is `link.proto`; `make stubs` writes `link_pb2` and `link_pb2_grpc` from it.
"""

from typing import Final

from fedtrain.link.faults import ContractError

# Raised with every change that an older release cannot live with.
CONTRACT: Final = 1
# Largest `data` of a chunk.
CHUNK_BYTES: Final = 2**20
# Content up to this size travels in the message itself.
INLINE_BYTES: Final = 2**16
# Longest wait of a poll; a session ends after three of them in silence.
POLL_SECONDS: Final = 20
# Content that is larger is refused, unless a coordinator's or an agent's settings say otherwise.
LARGEST_CONTENT: Final = 4 * 2**30
# Largest message: a chunk, or the membership of the largest federation, and its frame.
LARGEST_MESSAGE: Final = 4 * 2**20


def check_version(own: tuple[str, int], other: tuple[str, int]) -> None:
    """Check that two programs can work together, whatever their releases.

    Args:
        own: This program's version of fedtrain, and its contract's number.
        other: The other end's.

    Raises:
        ContractError: The contracts differ; the message names both versions.
    """
    if own[1] != other[1]:
        older = "this one" if own[1] < other[1] else "the other end"
        raise ContractError(
            f"fedtrain {own[0]} here speaks contract {own[1]}, fedtrain {_shorten(other[0])} at"
            f" the other end speaks contract {other[1]}; update {older}"
        )


def _shorten(version: str) -> str:
    """Return what another program calls its version, fit for one line."""
    return "".join(one for one in version[:32] if one.isprintable()) or "of no version"

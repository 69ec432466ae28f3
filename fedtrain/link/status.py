"""Errors as gRPC's statuses, and back: a code of gRPC's, and a text "CODE: MESSAGE".

What the other end of a call is told is public. A peer's fault and a config that cannot run are
said as they are; anything else is a fault of this end, whose log has the details, and may be tried
again.
"""

import functools
import inspect
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, NoReturn, TypeVar, cast

import grpc

from fedtrain.errors import ConfigError, FedtrainError, PeerError
from fedtrain.link.faults import (
    ContentError,
    ContractError,
    IdentityError,
    RefusedError,
    RevokedError,
    UnavailableError,
)

log = logging.getLogger("fedtrain.link")
Handler = TypeVar("Handler", bound=Callable[..., Any])
MOST_TEXT: Final = 600  # characters of a message that are sent or believed
INTERNAL: Final = "internal"
_INTERNAL_TEXT: Final = "the other end failed; its own log has the details"
# By code of the error. What is not here is FAILED_PRECONDITION.
_STATUSES: Final = {
    ConfigError.code: grpc.StatusCode.INVALID_ARGUMENT,
    ContentError.code: grpc.StatusCode.OUT_OF_RANGE,
    IdentityError.code: grpc.StatusCode.UNAUTHENTICATED,
    RevokedError.code: grpc.StatusCode.PERMISSION_DENIED,
    UnavailableError.code: grpc.StatusCode.UNAVAILABLE,
    "role": grpc.StatusCode.PERMISSION_DENIED,
    "second-agent": grpc.StatusCode.ALREADY_EXISTS,
    "session": grpc.StatusCode.ABORTED,
}
# What this end raises for a code of the other's. What is not here is RefusedError.
_ERRORS: Final[dict[str, type[PeerError]]] = {
    ContentError.code: ContentError,
    ContractError.code: ContractError,
    IdentityError.code: IdentityError,
    RevokedError.code: RevokedError,
    UnavailableError.code: UnavailableError,
    INTERNAL: UnavailableError,
}
# A status without a code of ours comes from gRPC itself; these do not heal.
_FOR_GOOD: Final = {
    grpc.StatusCode.UNIMPLEMENTED: "does not know this call; update it",
    grpc.StatusCode.INVALID_ARGUMENT: "does not understand this call; update one of the two",
}
_DETAILS: Final = re.compile(r"([a-z][a-z0-9-]{0,40}): (.*)", re.DOTALL)


def answering(method: Handler) -> Handler:
    """Decorate a servicer's method: what it raises ends the call with its status.

    Args:
        method: `method(self, request, context)`, a function or a generator.
    """
    if inspect.isgeneratorfunction(method):

        @functools.wraps(method)
        def stream(self: Any, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            try:
                yield from method(self, request, context)
            except Exception as error:  # noqa: BLE001 - the outermost guard of a call
                _abort(context, error)

        return cast("Handler", stream)

    @functools.wraps(method)
    def call(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return method(self, request, context)
        except Exception as error:  # noqa: BLE001 - the outermost guard of a call
            _abort(context, error)

    return cast("Handler", call)


def describe_status(error: Exception) -> tuple[grpc.StatusCode, str]:
    """Return the status and the public text that stand for an error."""
    if isinstance(error, PeerError | ConfigError):
        status = _STATUSES.get(error.code, grpc.StatusCode.FAILED_PRECONDITION)
        return status, f"{error.code}: {_clean(str(error))}"
    return grpc.StatusCode.INTERNAL, f"{INTERNAL}: {_INTERNAL_TEXT}"


def translate(error: grpc.RpcError) -> FedtrainError:
    """Return what a failed call is at this end.

    Args:
        error: What gRPC raised; it holds what the other end said, which may be anything.

    Returns:
        ContentError, ContractError, IdentityError or RevokedError where the other end raised one;
        UnavailableError where a later call may succeed; RefusedError otherwise.
    """
    status, details = error.code(), error.details() or ""
    found = _DETAILS.fullmatch(details)
    if found is not None and _is_ours(found[1], status):
        reason, text = found[1], _clean(found[2])
        kind = _ERRORS.get(reason)
        return RefusedError(reason, text) if kind is None else kind(text)
    if status in _FOR_GOOD:
        return RefusedError(status.name.lower(), f"the other end {_FOR_GOOD[status]}")
    return UnavailableError(f"no answer ({status.name}: {_clean(details)[:200]})")


def _is_ours(reason: str, status: grpc.StatusCode) -> bool:
    if reason == INTERNAL:
        return status is grpc.StatusCode.INTERNAL
    return status is _STATUSES.get(reason, grpc.StatusCode.FAILED_PRECONDITION)


def _abort(context: grpc.ServicerContext, error: Exception) -> NoReturn:
    if isinstance(error, grpc.RpcError):  # the caller went away while it was being read
        context.abort(grpc.StatusCode.CANCELLED, "the caller went away")
    if not isinstance(error, PeerError | ConfigError):
        log.error("call_failed error=%s", type(error).__name__, exc_info=error)
    context.abort(*describe_status(error))
    raise AssertionError  # pragma: no cover - abort raises


def _clean(text: str) -> str:
    """Return a text that is fit for one line of a log or a terminal."""
    return "".join(one if one.isprintable() else " " for one in text[:MOST_TEXT]).strip()

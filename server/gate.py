"""Who may make a call: members with the right role, each so many at a time and so often."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import grpc

from fedtrain.errors import PeerError
from fedtrain.link.faults import UnavailableError
from fedtrain.link.tls import Peer, read_peer
from fedtrain.membership.records import SignedMembership

MOST_CALLS: Final = 8  # of one member at a time
CALLS_A_SECOND: Final = 10.0  # of one operator, in the long run
_BURST: Final = 60.0
# A certificate is not checked anew at each call: its end is noticed so much later, a newer
# membership at once.
_KNOWN_SECONDS: Final = 10.0
_MOST_KNOWN: Final = 4096


class RoleError(PeerError):
    """The caller's role does not allow the call."""

    code = "role"


@dataclass(frozen=True)
class _Identified:
    """Who shows a certificate, by one membership, for a while."""

    peer: Peer
    signed: SignedMembership
    until: float


class Gate:
    """Lets calls in.

    Args:
        get_membership: Returns the membership as it is now.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        get_membership: Callable[[], SignedMembership],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._get_membership = get_membership
        self._clock = clock
        self._lock = threading.Lock()
        self._calls: Counter[str] = Counter()
        self._allowance: dict[str, tuple[float, float]] = {}
        self._identified: dict[tuple[Any, ...], _Identified] = {}

    @contextmanager
    def admit(
        self, context: grpc.ServicerContext, roles: Collection[str], *, limited: bool = False
    ) -> Iterator[Peer]:
        """Let a call in, for as long as it lasts.

        Args:
            context: The call.
            roles: Who may make it.
            limited: Whether it counts against what an operator may ask in a while.

        Raises:
            IdentityError: The caller is no member.
            RoleError: Its role does not allow it.
            UnavailableError: It makes too many calls.
        """
        peer = self.identify(context)
        if peer.role not in roles:
            raise RoleError(
                f"{peer.role} {peer.name!r} may not do this; it is for {', '.join(sorted(roles))}"
            )
        if limited:
            self._take(peer.name)
        self._enter(peer.name)
        try:
            yield peer
        finally:
            with self._lock:
                self._calls[peer.name] -= 1

    def identify(self, context: grpc.ServicerContext) -> Peer:
        """Return who makes a call, by the membership as it is now.

        Raises:
            IdentityError: The caller is no member.
        """
        signed = self._get_membership()
        shown = context.auth_context()
        key = tuple((name, *shown[name]) for name in sorted(shown))
        now = self._clock()
        known = self._identified.get(key)
        if known is not None and known.signed is signed and now < known.until:
            return known.peer
        peer = read_peer(context, signed)
        if len(self._identified) >= _MOST_KNOWN:
            self._identified.clear()
        self._identified[key] = _Identified(peer, signed, now + _KNOWN_SECONDS)
        return peer

    def _enter(self, name: str) -> None:
        with self._lock:
            if self._calls[name] >= MOST_CALLS:
                raise UnavailableError(
                    f"{name!r} has {MOST_CALLS} calls in progress, more are not let in; try again"
                )
            self._calls[name] += 1

    def _take(self, name: str) -> None:
        """Take one call from an operator's allowance, which fills up with time."""
        with self._lock:
            now = self._clock()
            left, at = self._allowance.get(name, (_BURST, now))
            left = min(_BURST, left + (now - at) * CALLS_A_SECOND)
            if left < 1:
                raise UnavailableError(
                    f"{name!r} calls more than {CALLS_A_SECOND:g} times a second; try again later"
                )
            self._allowance[name] = left - 1, now

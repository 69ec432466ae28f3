"""Which sites are connected: one session a site, which ends by three polls of silence.

Sessions are kept in the database, so that agents go on through a restart of the coordinator, and a
second agent is refused after it as before.
"""

import secrets
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from fedtrain.errors import PeerError

from .database import Database

SESSION_BYTES: Final = 16
_POLLS_OF_SILENCE: Final = 3
_SESSIONS: Final = """
SELECT site, session, version, clock_skew_ms, membership_version, seen_ms, replaced FROM sessions
"""
Clock = Callable[[], float]


class SessionError(PeerError):
    """The session that a call names is not the site's: the agent says hello again."""

    code = "session"


class SecondAgentError(PeerError):
    """Another agent of this site is connected."""

    code = "second-agent"


@dataclass
class Session:
    """One agent of a site.

    Attributes:
        site: Name.
        id: 16 random bytes.
        version: Of the agent's fedtrain.
        clock_skew_ms: How far the agent's clock is ahead.
        membership_version: That it has.
        seen_ms: When it was last heard, milliseconds since 1970.
        heard: The same by a clock that is never set.
        replaced: The session that this one took the place of, until it is used: where the answer
            to a hello was lost, the agent says the same hello again.
        waiting: Calls of it that are in progress: it is not silent.
        is_paused: Whether it takes no task.
        is_over: Whether another took its place, it left, or it was cut.
    """

    site: str
    id: bytes
    version: str
    clock_skew_ms: int
    membership_version: int
    seen_ms: int
    heard: float
    replaced: bytes | None = None
    waiting: int = 0
    is_paused: bool = False
    is_over: bool = False


@dataclass(frozen=True)
class SiteState:
    """What an operator sees of a site; `state` is online, paused, offline or never."""

    name: str
    state: str
    version: str = ""
    seen_ms: int = 0
    clock_skew_ms: int = 0
    membership_version: int = 0


class Sessions:
    """The sessions of all sites."""

    def __init__(
        self,
        database: Database,
        *,
        poll_seconds: float,
        clock: Clock = time.monotonic,
        wall_clock: Clock = time.time,
    ) -> None:
        """Load the sessions of before a restart; each has its silence still before it.

        Args:
            database: Where they are kept.
            poll_seconds: The longest wait of a poll.
            clock: Monotonic seconds.
            wall_clock: Seconds since 1970.
        """
        self._database = database
        self._silence = _POLLS_OF_SILENCE * poll_seconds
        self._clock = clock
        self._wall_clock = wall_clock
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._sessions: dict[str, Session] = {}
        for site, id_, version, skew, membership, seen, replaced in database.read(_SESSIONS):
            session = Session(site, id_, version, skew, membership, seen, clock(), replaced)
            session.is_over = not id_
            self._sessions[site] = session

    def begin(
        self,
        site: str,
        last_session: bytes,
        *,
        version: str,
        membership_version: int = 0,
        clock_ms: int = 0,
    ) -> Session:
        """Begin a site's session, in the place of the one that this agent held last.

        Args:
            site: Name, from its certificate.
            last_session: The one that the agent held last; empty at first.
            version: Of the agent's fedtrain.
            membership_version: That it has.
            clock_ms: Its clock.

        Raises:
            SecondAgentError: Another agent's session lives.
        """
        now_ms = int(self._wall_clock() * 1000)
        with self._lock:
            known = self._sessions.get(site)
            own = known is not None and last_session in (known.id, known.replaced)
            if known is not None and self._is_alive(known) and not own:
                raise SecondAgentError(
                    f"site {site!r} has another agent, heard"
                    f" {self._clock() - known.heard:.0f} s ago; stop it, or wait"
                    f" {self._silence:.0f} s after its end"
                )
            if known is not None:
                known.is_over = True
            session = Session(
                site,
                secrets.token_bytes(SESSION_BYTES),
                version,
                clock_ms - now_ms,
                membership_version,
                now_ms,
                self._clock(),
                replaced=last_session,
            )
            self._save(session)
            self._sessions[site] = session
            self._changed.notify_all()
        return session

    def enter(self, site: str, session: bytes) -> Session:
        """Return a site's living session at the begin of a call in it; `leave_call` ends that.

        Raises:
            SessionError: It is not the site's, or it is over.
        """
        with self._lock:
            known = self._sessions.get(site)
            if known is None or known.id != session or not self._is_alive(known):
                raise SessionError(f"site {site!r} has no such session; say hello again")
            if known.replaced is not None:  # the agent has this one: no other may take its place
                known.replaced = None
                self._save(known)
            known.waiting += 1
            self._hear(known)
            return known

    def check(self, session: Session) -> None:
        """Raise SessionError if a session has ended while a call in it waited."""
        if session.is_over:
            raise SessionError(f"the session of site {session.site!r} has ended; say hello again")

    def leave_call(self, session: Session) -> None:
        """Say that a call in a session has ended."""
        with self._lock:
            session.waiting -= 1
            self._hear(session)

    def note_poll(self, session: Session, *, is_paused: bool) -> None:
        """Keep what a poll says of its agent."""
        with self._lock:
            if session.is_paused != is_paused:
                session.is_paused = is_paused
                self._changed.notify_all()

    def note_membership(self, site: str, session: bytes, version: int) -> None:
        """Keep which membership was handed to a site's agent."""
        with self._lock:
            known = self._sessions.get(site)
            if known is not None and known.id == session:
                known.membership_version = version

    def end(self, session: Session) -> None:
        """End a session: its agent left."""
        with self._lock:
            session.is_over = True
            if self._sessions.get(session.site) is session:
                session.id = b""
                self._save(session)
            self._changed.notify_all()

    def cut(self, members: Collection[str]) -> list[str]:
        """End the sessions of all sites that are no members any more; return their names."""
        with self._lock:
            gone = [s for s in self._sessions.values() if s.site not in members and not s.is_over]
            for session in gone:
                session.is_over, session.id = True, b""
                self._save(session)
            self._changed.notify_all()
        return [session.site for session in gone]

    def list_online(self) -> set[str]:
        """Return the sites that take tasks now."""
        with self._lock:
            return {
                s.site for s in self._sessions.values() if self._is_alive(s) and not s.is_paused
            }

    def wait_for_change(self, seconds: float) -> None:
        """Return when a site came, left, paused or went on, or after some seconds."""
        with self._lock:
            self._changed.wait(seconds)

    def wake_all(self) -> None:
        """Let those who wait for a change look whether they still should."""
        with self._lock:
            self._changed.notify_all()

    def describe(self, sites: Sequence[str]) -> list[SiteState]:
        """Return what is known of each of some sites."""
        with self._lock:
            return [self._describe(site) for site in sites]

    def _describe(self, site: str) -> SiteState:
        known = self._sessions.get(site)
        if known is None:
            return SiteState(site, "never")
        state = "offline"
        if self._is_alive(known):
            state = "paused" if known.is_paused else "online"
        return SiteState(
            site,
            state,
            known.version,
            known.seen_ms,
            known.clock_skew_ms,
            known.membership_version,
        )

    def _is_alive(self, session: Session) -> bool:
        if session.is_over:
            return False
        return session.waiting > 0 or self._clock() - session.heard < self._silence

    def _hear(self, session: Session) -> None:
        session.heard = self._clock()
        session.seen_ms = int(self._wall_clock() * 1000)

    def _save(self, session: Session) -> None:
        with self._database.writing("session") as connection:
            connection.execute(
                "INSERT OR REPLACE INTO sessions (site, session, version, seen_ms, clock_skew_ms,"
                " membership_version, replaced) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    session.site,
                    session.id,
                    session.version,
                    session.seen_ms,
                    session.clock_skew_ms,
                    session.membership_version,
                    session.replaced,
                ),
            )

"""The site's agent: dials the coordinator, holds a session, and comes back when it is lost.

One warm process; nothing that arrives is executable, all that runs is what is installed. The order
of checks: the peer by its certificate, the membership by the root's signature, the version, then
what the app checks of each task: config digest, policy, budget, and data at last.

Guarantees:
    * A reply is on the site's disk before it is sent, and until the coordinator has acknowledged
      it: whenever the process is killed, the same task is answered with the same bytes.
    * What leaves is what the app answered, or a public code and text; all else stays in the log.
    * Each wait has a deadline. What can heal is tried again, and status and log say what is
      missing; what cannot ends the agent with one line.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from fedtrain.errors import FedtrainError, PeerError, SiteError
from fedtrain.link.contract import CONTRACT, check_version
from fedtrain.link.faults import ContractError, RefusedError, RevokedError, UnlistedKeyError
from fedtrain.link.tls import open_channel
from fedtrain.membership.adoption import adopt_membership
from fedtrain.membership.member import Member, load_member
from fedtrain.membership.membership import verify_membership

from .agent_folder import AgentFolder
from .agent_settings import AgentSettings
from .agent_status import CONNECTING, FAILED, STOPPED, StatusBoard, shorten
from .backoff import Backoff
from .control import Wish, read_wish
from .outbox import Outbox
from .revocation import find_older
from .serving import Serving
from .session import Pulse, Session
from .stop import Dropped, Stop
from .work import Work

log = logging.getLogger("fedtrain.clients")
# Clocks that differ more than this are said in the log: certificates and deadlines rest on them.
LARGEST_SKEW_MS: Final = 60_000
# Public code of a coordinator that does not know the session: say hello again.
NO_SESSION: Final = "session"
_LOOK_SECONDS: Final = 0.2


@dataclass(frozen=True)
class AgentParts:
    """What an agent is made of.

    Attributes:
        path: The site's folder.
        version: Of fedtrain.
        settings: Where coordinator and data are.
        folder: The agent's own folder, its lock held.
        board: Shows what the agent does.
        stop: Says when it is to end.
    """

    path: Path
    version: str
    settings: AgentSettings
    folder: AgentFolder
    board: StatusBoard
    stop: Stop


class StorageError(SiteError):
    """This site's folder cannot be written or read as it is now: what heals."""

    code = "storage"


@contextmanager
def _waiting_for_disk() -> Iterator[None]:
    """Turn what a full disk, or a file that is being replaced, raises into what is tried again."""
    try:
        yield
    except SiteError as error:
        raise StorageError(str(error)) from error


class Agent:
    """The agent of one site; `run` returns when it is to end."""

    def __init__(self, site: AgentParts, work: Work, *, backoff: Backoff | None = None) -> None:
        """Take a site and what answers its tasks."""
        self._site = site
        self._work = work
        self._backoff = backoff or Backoff()
        self._outbox = Outbox(site.folder.outbox, most_bytes=site.settings.outbox_bytes)
        self._pulse = Pulse()
        self._lost = ""
        self._since = ""
        self._greeted = 0

    def run(self) -> None:
        """Serve until a signal or the owner ends it.

        Raises:
            FedtrainError: Something that does not heal by itself.
        """
        board = self._site.board
        self._pulse.start()
        try:
            while not self._is_ending():
                self._try_session()
            board.update(state=STOPPED, missing="")
        except FedtrainError as error:
            log.error("agent_failed message=%s", error)
            board.report(str(error))
            board.update(state=FAILED, missing=str(error))
            raise
        finally:
            self._pulse.stop()

    def _try_session(self) -> None:
        """Hold a session until it ends; what can heal is waited for."""
        try:
            self._hold_session()
        except RevokedError as error:
            self._miss(str(self._find_cure(error)))
        except ContractError:
            raise
        except RefusedError as error:
            if error.reason != NO_SESSION:
                raise
            log.info("session_ended message=%s", error)
        except (PeerError, StorageError) as error:
            self._miss(str(error))
        except Dropped:
            log.info("task_dropped")
        if not self._is_ending():
            self._wait(self._backoff.next())

    def _find_cure(self, error: RevokedError) -> PeerError:
        """Return what heals although the coordinator does not know this site.

        Raises:
            RevokedError: Nothing.
        """
        older = find_older(error, self._site.board.status.membership_version)
        if older is None:
            raise error
        return older

    def _hold_session(self) -> None:
        site, member = self._site, self._load_member()
        membership = member.signed.membership
        address = site.settings.coordinator or membership.coordinator
        site.board.update(
            state=CONNECTING,
            coordinator=address,
            federation=membership.federation,
            membership_version=membership.version,
            certificate_ends=member.certificate.not_valid_after_utc.isoformat(),
        )
        session = self._dial(address)
        try:
            largest = self._greet(session, member)
            Serving(
                session,
                pulse=self._pulse,
                outbox=self._outbox,
                work=self._work,
                largest=largest,
                folder=site.folder,
                board=site.board,
                stop=site.stop,
                on_membership=lambda version: self._follow(session, version),
                on_progress=self._backoff.reset,
            ).run()
            self._leave(session)
        except Dropped:
            self._leave(session)
            raise
        finally:
            self._pulse.rest()
            session.close()

    def _dial(self, address: str) -> Session:
        """Return a session to greet, with the coordinator that the membership lists."""
        try:
            return self._open(address)
        except UnlistedKeyError:  # it may have been renewed: a newer membership lists the new one
            session = self._open(address, for_membership=True)
            try:
                self._adopt(session)
            finally:
                session.close()
        return self._open(address)

    def _open(self, address: str, *, for_membership: bool = False) -> Session:
        site = self._site
        channel = open_channel(
            site.path,
            address,
            proxy=site.settings.proxy or None,
            for_membership=for_membership,
        )
        return Session(channel, is_unwanted=lambda: site.stop.is_late)

    def _load_member(self) -> Member:
        """Return who this site is, by the membership that it has.

        Raises:
            SiteError: It is no member any more.
        """
        with _waiting_for_disk():  # or for a kit that is being installed
            member = load_member(self._site.path)
        if member.entry is None:
            membership = member.signed.membership
            raise SiteError(
                f"site {member.name!r} is not in version {membership.version} of"
                f" {membership.federation!r}: it was revoked; ask the federation's root"
            )
        return member

    def _greet(self, session: Session, member: Member) -> int:
        """Say hello; membership and version are checked before any task is taken.

        Returns:
            The largest content that the coordinator exchanges.
        """
        site, own = self._site, member.signed.membership.version
        hello = session.hello(
            site.version, last_session=site.folder.load_session(), membership_version=own
        )
        with _waiting_for_disk():
            site.folder.save_session(hello.session)
        if abs(session.clock_skew_ms) > LARGEST_SKEW_MS:
            log.warning("clocks_differ seconds=%d", session.clock_skew_ms // 1000)
        if hello.membership_version < own:
            log.warning("coordinator_is_behind membership=%d own=%d", hello.membership_version, own)
        self._follow(session, hello.membership_version)
        check_version((site.version, CONTRACT), (hello.version, hello.contract))
        site.board.update(
            clock_skew_ms=session.clock_skew_ms,
            coordinator_version=shorten(hello.version),
            missing="",
        )
        site.board.count(reconnects=int(self._greeted > 0))
        log.info("session_began coordinator_version=%s", shorten(hello.version))
        self._greeted += 1
        self._lost = self._since = ""
        return int(hello.largest_content)

    def _follow(self, session: Session, version: int) -> None:
        """Adopt the membership that the coordinator has, where it is newer than this site's."""
        if version > self._site.board.status.membership_version:
            self._adopt(session)

    def _adopt(self, session: Session) -> None:
        """Fetch the membership, and pin it if the root signed it and it is newer."""
        path = self._site.path
        pinned = load_member(path)
        signed = verify_membership(session.fetch_membership(), pinned.root_public_key)
        if signed.membership.version <= pinned.signed.membership.version:
            return
        with _waiting_for_disk():
            membership = adopt_membership(path, signed)
        log.info("membership_adopted version=%d", membership.version)
        self._site.board.update(membership_version=membership.version)
        self._load_member()

    def _leave(self, session: Session) -> None:
        """End the session in good order, as far as the coordinator can be reached."""
        self._pulse.rest()
        try:
            session.leave()
        except FedtrainError as error:
            log.info("leave_failed message=%s", error)

    def _miss(self, message: str) -> None:
        """Say what is missing; in the log once, until it changes."""
        self._since = self._since or f"{datetime.now().astimezone():%Y-%m-%d %H:%M}"
        text = f"{message}; so since {self._since}"
        if message != self._lost:
            log.warning("coordinator_is_missing message=%s", text)
            self._site.board.report(message)
        self._lost = message
        self._site.board.update(state=CONNECTING, missing=text)

    def _is_ending(self) -> bool:
        return self._site.stop.is_wanted or read_wish(self._site.folder) is Wish.LEAVE

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._is_ending():
            time.sleep(_LOOK_SECONDS)

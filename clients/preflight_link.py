"""Whether a site can reach its coordinator: handshake, identity, round trip, clock, version.

A running agent is not disturbed: what needs a session is then taken from its status.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Final

from fedtrain.errors import PeerError, SiteError
from fedtrain.link import link_pb2 as wire
from fedtrain.link.contract import CONTRACT, check_version
from fedtrain.link.faults import RevokedError
from fedtrain.link.tls import open_channel
from fedtrain.membership.adoption import load_pinned_root
from fedtrain.membership.member import load_member
from fedtrain.membership.membership import verify_membership

from .agent_folder import AgentFolder, hold_lock, is_running, open_agent_folder
from .agent_settings import load_settings
from .agent_status import load_status, shorten
from .revocation import find_older
from .session import Session

LARGEST_SKEW_SECONDS: Final = 30.0


def dial(site: Path) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield what is to be checked of the link, each a name and a function that says what it found.

    The functions raise FedtrainError where something is to be done.
    """
    call = _Call(site)
    yield "handshake", call.shake_hands
    yield "round trip", call.make_round_trip
    yield "clock", call.check_clock
    yield "version", call.check_version


class _Call:
    """One hello, and what follows from it."""

    def __init__(self, site: Path) -> None:
        self._site = site
        self._skew_ms: int | None = None
        self._version = ""
        self._contract = 0

    def shake_hands(self) -> str:
        """Make a handshake, which shows both ends' certificates."""
        membership, begun = load_member(self._site).signed.membership, time.monotonic()
        settings = load_settings(self._site)
        address = settings.coordinator or membership.coordinator
        self._open().close()
        took = 1000 * (time.monotonic() - begun)
        through = f" through {settings.proxy}" if settings.proxy else ""
        return (
            f"TLS 1.3 with {address}{through} in {took:.0f} ms: the coordinator that version"
            f" {membership.version} of the membership lists"
        )

    def make_round_trip(self) -> str:
        """Say hello, fetch the membership, poll and leave."""
        folder = open_agent_folder(self._site)
        if is_running(folder):
            return self._read_status(folder)
        own = load_member(self._site).signed.membership.version
        with ExitStack() as stack:
            stack.enter_context(hold_lock(folder))
            session = self._open()
            stack.callback(session.close)
            hello = self._greet(session, folder, own)
            folder.save_session(hello.session)
            self._skew_ms = session.clock_skew_ms
            self._version, self._contract = shorten(hello.version), hello.contract
            begun = time.monotonic()
            signed = verify_membership(session.fetch_membership(), load_pinned_root(self._site))
            session.poll(None, waits=False, paused=True, is_over=lambda: False)
            took = 1000 * (time.monotonic() - begun) / 2
            session.leave()
        theirs = signed.membership.version
        if theirs < own:
            raise PeerError(
                f"the coordinator has version {theirs} of the membership, this site {own}; hand it"
                " the newer one: fedtrain server install"
            )
        newer = f"; membership version {theirs} is adopted at the start" if theirs > own else ""
        return f"{took:.0f} ms{newer}"

    def check_clock(self) -> str:
        """Compare the clocks."""
        if self._skew_ms is None:
            raise PeerError("not compared: there was no round trip")
        seconds = self._skew_ms / 1000
        if abs(seconds) > LARGEST_SKEW_SECONDS:
            where = "behind" if seconds > 0 else "ahead of"
            raise SiteError(
                f"this machine's clock is {abs(seconds):.0f} s {where} the coordinator's, at most"
                f" {LARGEST_SKEW_SECONDS:g} s are good; set it (NTP), here or there"
            )
        return f"{-seconds:+.1f} s from the coordinator's"

    def check_version(self) -> str:
        """Compare the versions."""
        if not self._version:
            raise PeerError("not compared: there was no round trip")
        own = metadata.version("fedtrain")
        check_version((own, CONTRACT), (self._version, self._contract))
        return f"{own} here, {self._version} there, contract {CONTRACT}"

    def _greet(self, session: Session, folder: AgentFolder, own: int) -> wire.HelloReply:
        try:
            return session.hello(
                metadata.version("fedtrain"),
                last_session=folder.load_session(),
                membership_version=own,
            )
        except RevokedError as error:
            raise (find_older(error, own) or error) from error

    def _open(self) -> Session:
        settings, membership = load_settings(self._site), load_member(self._site).signed.membership
        channel = open_channel(
            self._site,
            settings.coordinator or membership.coordinator,
            proxy=settings.proxy or None,
        )
        return Session(channel, is_unwanted=lambda: False)

    def _read_status(self, folder: AgentFolder) -> str:
        status = load_status(folder.status)
        if status is None or status.missing or not status.coordinator_version:
            missing = "no session so far" if status is None else status.missing or status.state
            raise PeerError(f"the agent that runs here is not connected: {missing}")
        self._skew_ms = status.clock_skew_ms
        self._version, self._contract = status.coordinator_version, CONTRACT
        return f"an agent runs here, {status.state} since {status.since}"

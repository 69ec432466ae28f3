"""Where an agent keeps what it must find again after it was killed.

SITE/agent/
  session       the session that it held last
  outbox/       replies that the coordinator has not acknowledged
  incoming/     the task that is being downloaded
  status.json   what it is doing, for `fedtrain client status`
  control       what it is wanted to do: pause, leave; missing: run
  log.txt       the site's own log
  lock          held while an agent runs

A process that is killed at any point leaves a folder that the next one goes on with.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fedtrain.errors import SiteError
from fedtrain.membership.files import make_folder, write_file

AGENT_FOLDER: Final = "agent"
_SESSION_BYTES: Final = 16


@dataclass(frozen=True)
class AgentFolder:
    """The agent's own folder within the site's.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def outbox(self) -> Path:
        """Folder of replies."""
        return self.path / "outbox"

    @property
    def incoming(self) -> Path:
        """Folder of downloads."""
        return self.path / "incoming"

    @property
    def status(self) -> Path:
        """File that says what the agent is doing."""
        return self.path / "status.json"

    @property
    def control(self) -> Path:
        """File that says what the agent is wanted to do."""
        return self.path / "control"

    @property
    def log(self) -> Path:
        """The log."""
        return self.path / "log.txt"

    @property
    def lock(self) -> Path:
        """File that a running agent holds locked."""
        return self.path / "lock"

    def load_session(self) -> bytes:
        """Return the session that was held last; empty where there is none or it is damaged."""
        try:
            session = (self.path / "session").read_bytes()
        except OSError:
            return b""
        return session if len(session) == _SESSION_BYTES else b""

    def save_session(self, session: bytes) -> None:
        """Keep a session, before it is used: a restarted agent takes its place at once.

        Raises:
            SiteError: The disk is full.
        """
        write_file(self.path / "session", session)


def open_agent_folder(site: Path) -> AgentFolder:
    """Return the agent's folder in a site's folder; what is missing of it is made.

    Raises:
        SiteError: It cannot be made, or others can enter it.
    """
    folder = AgentFolder(site / AGENT_FOLDER)
    for path in (folder.path, folder.outbox, folder.incoming):
        make_folder(path)
    return folder


@contextmanager
def hold_lock(folder: AgentFolder) -> Iterator[None]:
    """Be the only agent of a folder; it ends with the process, however that ends.

    Raises:
        SiteError: Another agent runs in it.
    """
    handle = _open_lock(folder)
    try:
        if not _try_lock(handle):
            raise SiteError(
                f"{folder.path} is in use by the agent with process id {_read_pid(handle)}; stop"
                " that one first, or see `fedtrain client status`"
            )
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def is_running(folder: AgentFolder) -> bool:
    """Say whether an agent runs in a folder."""
    if not folder.lock.exists():
        return False
    handle = _open_lock(folder)
    try:
        return not _try_lock(handle)
    finally:
        os.close(handle)


def _open_lock(folder: AgentFolder) -> int:
    try:
        return os.open(folder.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise SiteError(
            f"{folder.lock} cannot be opened ({error.strerror}); let this user write there"
        ) from error


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_pid(handle: int) -> str:
    return os.pread(handle, 20, 0).decode("ascii", "replace").strip() or "?"

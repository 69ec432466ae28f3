"""What an agent is doing: a small file that it rewrites, and that commands and people read.

No counts of records, values or paths of data are in it. How many seconds the tasks took does follow
from the records: the file is its owner's alone, and nothing of it is sent.
"""

import json
import os
import threading
import time
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from fedtrain.durable import replace_file
from fedtrain.errors import SiteError

CONNECTING: Final = "connecting"
WAITING: Final = "waiting"
RECEIVING: Final = "receiving"
WORKING: Final = "working"
SENDING: Final = "sending"
PAUSED: Final = "paused"
STOPPED: Final = "stopped"
FAILED: Final = "failed"
STATES: Final = (CONNECTING, WAITING, RECEIVING, WORKING, SENDING, PAUSED, STOPPED, FAILED)
_REWRITE_SECONDS: Final = 1.0
# What a task changes several times; within so many seconds the file is rewritten once.
_OF_TASKS: Final = frozenset(("state", "run", "round", "task"))
_SETTLE_SECONDS: Final = 0.25
_LONGEST: Final = 80  # characters


@dataclass(frozen=True)
class AgentStatus:
    """What an agent is doing.

    Attributes:
        site: The site's name.
        state: One of `STATES`.
        since: When that began, ISO 8601.
        pid: Process of the agent.
        version: Of fedtrain.
        federation: Name of the federation.
        membership_version: Of the membership that this site has.
        certificate_ends: When this site's certificate ends, ISO 8601.
        coordinator: Address that the agent dials.
        coordinator_version: Of fedtrain there; empty before the first session.
        missing: What keeps the agent from working; empty where nothing does.
        run: The run of the last task.
        round: Its round.
        task: Its kind.
        tasks: Tasks that were answered since the agent began.
        errors: Answers among them that were public error codes.
        reconnects: Sessions after the first.
        bytes_down: Content received.
        bytes_up: Content sent.
        cpu_seconds: Processor time of the tasks, the start of the agent left out.
        gpu_seconds: For how long they had a GPU.
        clock_skew_ms: The coordinator's clock minus this one; None until it was compared.
        last_error: The last thing that went wrong, in full: for the site alone.
        last_error_at: When, ISO 8601.
        budget: Shares of the lifetime budget: committed, reserved, left; empty where not known.
    """

    site: str
    state: str = CONNECTING
    since: str = ""
    pid: int = 0
    version: str = ""
    federation: str = ""
    membership_version: int = 0
    certificate_ends: str = ""
    coordinator: str = ""
    coordinator_version: str = ""
    missing: str = ""
    run: str = ""
    round: int = 0
    task: str = ""
    tasks: int = 0
    errors: int = 0
    reconnects: int = 0
    bytes_down: int = 0
    bytes_up: int = 0
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    clock_skew_ms: int | None = None
    last_error: str = ""
    last_error_at: str = ""
    budget: dict[str, float] = field(default_factory=dict)


class StatusBoard:
    """The status of the running agent, in memory and in its file.

    A disk that is full does not stop an agent: the file then says what was true before. Of quick
    tasks the file shows how it is a moment after the last.
    """

    def __init__(self, path: Path, site: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._status = AgentStatus(site, pid=os.getpid(), since=read_clock())
        self._written = 0.0
        self._later: threading.Timer | None = None

    @property
    def status(self) -> AgentStatus:
        """What the agent is doing now."""
        return self._status

    def update(self, **changes: Any) -> None:
        """Change the status and rewrite the file."""
        with self._lock:
            if changes.get("state", self._status.state) != self._status.state:
                changes["since"] = read_clock()
            self._status = replace(self._status, **changes)
            state_of_task = self._status.state in (WAITING, RECEIVING, WORKING, SENDING)
            if changes.keys() - {"since"} <= _OF_TASKS and state_of_task:
                self._write_soon()
            else:
                self._write()

    def count(self, **amounts: float) -> None:
        """Add to counters; the file is rewritten once a second at most."""
        with self._lock:
            sums = {name: getattr(self._status, name) + added for name, added in amounts.items()}
            self._status = replace(self._status, **sums)
            if time.monotonic() - self._written >= _REWRITE_SECONDS:
                self._write()

    def report(self, message: str) -> None:
        """Note what went wrong."""
        self.update(last_error=message, last_error_at=read_clock())

    def _write_soon(self) -> None:
        """Write at once where the last write is some time ago, else a moment later."""
        if time.monotonic() - self._written >= _SETTLE_SECONDS:
            self._write()
        elif self._later is None:
            self._later = threading.Timer(_SETTLE_SECONDS, self._write_late)
            self._later.daemon = True
            self._later.start()

    def _write_late(self) -> None:
        with self._lock:
            if self._later is not None:  # else it was written meanwhile
                self._write()

    def _write(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None
        text = json.dumps(asdict(self._status), indent=1) + "\n"
        try:
            replace_file(self._path, text, mode=0o600, sync=False)
        except OSError:
            return
        self._written = time.monotonic()


def load_status(path: Path) -> AgentStatus | None:
    """Return what an agent wrote last; None where none ever ran.

    Raises:
        SiteError: The file cannot be read, or is no status.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        known = {each.name for each in fields(AgentStatus)}
        return AgentStatus(**{key: value for key, value in tree.items() if key in known})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise SiteError(
            f"{path} is no status of an agent; remove it: the next writes it"
        ) from error


def read_clock() -> str:
    """Return the time, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def shorten(text: str) -> str:
    """Return what the coordinator calls something, fit for one line of a log or a terminal."""
    return "".join(one for one in text[:_LONGEST] if one.isprintable())

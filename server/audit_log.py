"""Who did what at the coordinator: lines that are only ever appended, each chained to the last.

A line is a JSON object with `previous`, the digest of the line before it. Whoever can write the
file can write all of it anew; a head that was noted elsewhere shows that.

Guarantees:
    * `record` returns only when its line would survive a power cut.
    * A last line without its end was never acted on: it is moved aside. Anything else that does not
      chain is refused.
"""

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from fedtrain.errors import AuditError

from .faults import CoordinatorError

FILE: Final = "audit.jsonl"
NO_HEAD: Final = "0" * 64
_MOST_TEXT: Final = 500  # characters of what somebody else wrote


@dataclass(frozen=True)
class AuditLine:
    """One action.

    Attributes:
        index: From 0.
        time_ms: Milliseconds since 1970, by the coordinator's clock.
        who: A member's name; the coordinator's own where it acts by itself.
        role: The member's role.
        what: The action, such as "submit".
        detail: What it was done to.
        outcome: "done", or why it was refused.
        previous: Digest of the line before.
    """

    index: int
    time_ms: int
    who: str
    role: str
    what: str
    detail: str
    outcome: str
    previous: str

    def to_line(self) -> bytes:
        """Return the line, without its end."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()


def compute_line_digest(line: bytes) -> str:
    """Return the digest that the next line names."""
    return hashlib.sha256(line).hexdigest()


class AuditLog:
    """The file, opened for appending.

    Attributes:
        head: Digest of the last line.
        entries: How many lines there are.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        """Open a log and check its chain, making it where it is missing.

        Raises:
            AuditError: A line, named by its number from 1, does not hold.
            CoordinatorError: The file cannot be read or written.
        """
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self.head, self.entries = NO_HEAD, 0
        try:
            _move_torn_line_aside(path)
            for line, digest in _read(path):
                self.entries, self.head = line.index + 1, digest
        except OSError as error:
            raise CoordinatorError(f"{path}: {error.strerror}; restore it") from error

    def record(self, who: str, role: str, what: str, *, detail: str = "", outcome: str) -> None:
        """Append a line; return when it is durable.

        Raises:
            CoordinatorError: The disk is full: what was to be done must not be done.
        """
        with self._lock:
            line = AuditLine(
                self.entries,
                int(self._clock() * 1000),
                who,
                role,
                what,
                detail[:_MOST_TEXT],
                outcome[:_MOST_TEXT],
                self.head,
            ).to_line()
            self._append(line + b"\n")
            self.entries, self.head = self.entries + 1, compute_line_digest(line)

    def _append(self, content: bytes) -> None:
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                length = os.fstat(descriptor).st_size
                try:
                    if os.write(descriptor, content) != len(content):
                        raise OSError(28, "No space left on device")
                    os.fsync(descriptor)
                except OSError:
                    os.ftruncate(descriptor, length)
                    raise
            finally:
                os.close(descriptor)
        except OSError as error:
            raise CoordinatorError(
                f"{self._path}: cannot be written ({error.strerror}); make room there and do it"
                " again"
            ) from error


def verify_audit_log(path: Path) -> tuple[int, str]:
    """Check a log's chain; return the number of its lines and its head.

    Raises:
        AuditError: A line, named by its number from 1, does not hold.
    """
    entries, head = 0, NO_HEAD
    for line, digest in _read(path):
        entries, head = line.index + 1, digest
    return entries, head


def _read(path: Path) -> Iterator[tuple[AuditLine, str]]:
    if not path.exists():
        return
    head = NO_HEAD
    with path.open("rb") as file:
        for number, raw in enumerate(file):
            content = raw.removesuffix(b"\n")
            try:
                line = AuditLine(**json.loads(content))
            except (ValueError, TypeError) as error:
                raise AuditError(f"{path}, line {number + 1} is no line of the log") from error
            if line.index != number or line.previous != head or line.to_line() != content:
                raise AuditError(
                    f"{path}, line {number + 1} does not follow the one before it; somebody changed"
                    " the log, keep it and compare it with a copy"
                )
            head = compute_line_digest(content)
            yield line, head


def _move_torn_line_aside(path: Path) -> None:
    """Cut a last line without its end, of a process that was killed, and keep it beside."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole == len(content):
            return
        path.with_name(f"{path.name}.torn").write_bytes(content[whole:])
        file.truncate(whole)
        os.fsync(file.fileno())

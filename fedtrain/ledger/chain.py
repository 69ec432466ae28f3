"""The ledger's file: lines that are only ever appended, each durable before it is acted on.

JSON lines and not SQLite: an officer reads them with any editor, a chain of hashes needs appends
and nothing else, a lock file gives one writer at a time, and there is no second file (write-ahead
log, journal) whose loss would quietly roll the ledger back.

Guarantees:
    * `append` returns only when the line would survive a power cut. A line that another process
      wrote is synced before it is trusted.
    * A last line without its end was never acted on: it is moved aside. Anything else that is
      malformed, out of order, not chained or not signed is refused, and nothing is written.
    * What was once read cannot be shortened or exchanged below a process that has it open.
"""

import fcntl
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fedtrain.errors import AuditError
from fedtrain.ledger.entries import NO_HEAD, Created, Entry, Head
from fedtrain.ledger.faults import LedgerError

FILE: Final = "ledger.jsonl"
LOCK: Final = "lock"
Hook = Callable[[str], None]
_LOG: Final = logging.getLogger("fedtrain.ledger")


@contextmanager
def locking(folder: Path, *, exclusive: bool = True) -> Iterator[None]:
    """Hold the ledger's lock: one writer, or several readers, among threads and processes.

    Raises:
        LedgerError: There is no ledger in the folder.
    """
    try:
        handle = os.open(folder / LOCK, os.O_RDWR if exclusive else os.O_RDONLY)
    except OSError as error:
        raise LedgerError(
            f"{folder}: no ledger can be opened there ({error.strerror}); name its folder"
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


class Chain:
    """The lines of one ledger, as far as they were read; used under `locking` only."""

    def __init__(self, folder: Path, *, on_step: Hook | None = None) -> None:
        """Take a ledger's folder; `read` opens it.

        Args:
            folder: Where `ledger.jsonl` is.
            on_step: Called with the name of each step of a write; for tests of crashes.
        """
        self._path = folder / FILE
        self._on_step: Hook = on_step or (lambda _: None)
        self._length = 0
        self._last = b""
        self._head: Head | None = None
        self._public_key: bytes | None = None

    @property
    def head(self) -> Head | None:
        """Return the last entry's head, or None before the first."""
        return self._head

    def read(self, *, repair: bool) -> list[Entry]:
        """Return the entries since the last call, checked and durable.

        Args:
            repair: Move a torn last line aside, which takes the exclusive lock; else leave it out.

        Raises:
            AuditError: A line, named by its number from 1, does not hold.
            LedgerError: The file cannot be read.
        """
        with self._reporting():
            known = self._read_known()
            whole, _, torn = known.rpartition(b"\n")
            if torn and repair:
                self._move_aside(torn)
            entries = self._check_lines(whole.split(b"\n") if whole else [])
            if entries and repair:
                self._sync()
        if entries:
            self._length += len(whole) + 1
            self._last = whole.rsplit(b"\n", 1)[-1] + b"\n"
            self._head = entries[-1].to_head()
        return entries

    def append(self, entry: Entry) -> None:
        """Write an entry that follows the head; return when it is durable.

        Raises:
            LedgerError: The disk refused; the ledger must be opened again.
        """
        line = entry.to_json().encode()
        with self._reporting(), self._path.open("ab", buffering=0) as file:
            try:
                _write(file.fileno(), line)
                self._on_step("entry-without-end")
                _write(file.fileno(), b"\n")
                self._on_step("entry-written")
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), self._length)
                raise
        self._on_step("entry-synced")
        self._length += len(line) + 1
        self._last, self._head = line + b"\n", entry.to_head()

    def _read_known(self) -> bytes:
        """Return what follows the lines already read, after checking that the last still stands."""
        start = self._length - len(self._last)
        with self._path.open("rb") as file:
            file.seek(start)
            found = file.read()
        if found[: len(self._last)] != self._last:
            raise AuditError(
                f"{self._path.name}: shortened or exchanged while in use; restore it from a copy"
            )
        return found[len(self._last) :]

    def _check_lines(self, lines: Sequence[bytes]) -> list[Entry]:
        entries: list[Entry] = []
        head, key = self._head, self._public_key
        for line in lines:
            number = 1 if head is None else head.index + 2
            try:
                entry = Entry.from_json(line.decode("ascii"))
                key = key or _get_key(entry)
                _check_link(entry, head, key)
            except UnicodeDecodeError as error:
                raise AuditError(f"{self._path.name}: line {number}: not ASCII text") from error
            except AuditError as error:
                raise AuditError(f"{self._path.name}: line {number}: {error}") from error
            head = entry.to_head()
            entries.append(entry)
        self._public_key = key
        return entries

    def _move_aside(self, torn: bytes) -> None:
        count = len(list(self._path.parent.glob(f"{FILE}.torn-*")))
        aside = self._path.with_name(f"{FILE}.torn-{count + 1}")
        aside.write_bytes(torn)
        with self._path.open("r+b") as file:
            file.truncate(file.seek(0, os.SEEK_END) - len(torn))
            os.fsync(file.fileno())
        _LOG.warning("ledger_line_torn bytes=%d moved_to=%s", len(torn), aside.name)

    def _sync(self) -> None:
        with self._path.open("rb") as file:
            os.fsync(file.fileno())

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise LedgerError(
                f"{self._path}: cannot be read or written ({error.strerror}); nothing was released"
            ) from error


def _check_link(entry: Entry, head: Head | None, public_key: bytes) -> None:
    index, previous = (0, NO_HEAD) if head is None else (head.index + 1, head.digest)
    if entry.index != index:
        raise AuditError(f"index {entry.index} where {index} is due: dropped, inserted or moved")
    if entry.previous != previous:
        raise AuditError(
            f"entry {index} does not follow the line before it: that line or this was changed"
        )
    if not entry.is_signed_by(public_key):
        raise AuditError(f"entry {index} is not signed by {public_key.hex()[:16]}: changed")


def _get_key(entry: Entry) -> bytes:
    if not isinstance(entry.body, Created):
        raise AuditError(f"the first entry is '{entry.body.kind}', not 'created'")
    return bytes.fromhex(entry.body.public_key)


def _write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]

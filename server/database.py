"""The coordinator's database: one SQLite file, written before it log, one writer.

A transaction is atomic whenever the process is killed: the operating system keeps what it was
handed. A power cut may take the last transactions with it, but for those that ask to be durable.
Where a lost transaction only means that something is asked again, it does not ask.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from .faults import CoordinatorError

FILE: Final = "link.db"
SCHEMA_VERSION: Final = 1
Hook = Callable[[str], None]
Rows = list[tuple[Any, ...]]
_SCHEMA: Final = """
CREATE TABLE nodes (node INTEGER PRIMARY KEY, site TEXT NOT NULL UNIQUE);
CREATE TABLE sessions (
    site TEXT PRIMARY KEY, session BLOB NOT NULL, version TEXT NOT NULL, seen_ms INTEGER NOT NULL,
    clock_skew_ms INTEGER NOT NULL, membership_version INTEGER NOT NULL, replaced BLOB
);
CREATE TABLE contents (digest BLOB PRIMARY KEY, size INTEGER NOT NULL, inline BLOB);
CREATE TABLE tasks (
    place INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE, run BLOB NOT NULL,
    round INTEGER NOT NULL, site TEXT NOT NULL, digest BLOB NOT NULL, seconds REAL NOT NULL
);
CREATE TABLE replies (
    task BLOB PRIMARY KEY, run BLOB NOT NULL, round INTEGER NOT NULL, site TEXT NOT NULL,
    size INTEGER, digest BLOB, inline BLOB, code INTEGER, reason TEXT
);
CREATE TABLE runs (
    place INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL UNIQUE, config TEXT NOT NULL,
    submitted_by TEXT NOT NULL, submitted_ms INTEGER NOT NULL, sites TEXT NOT NULL,
    secret BLOB NOT NULL, roster BLOB, status TEXT NOT NULL, reason TEXT NOT NULL,
    sitting INTEGER NOT NULL, since INTEGER NOT NULL, round INTEGER NOT NULL,
    rounds INTEGER NOT NULL, id BLOB
);
"""


class Database:
    """A connection that all threads share, under one lock.

    Attributes:
        lock: Held in each transaction; whoever must change memory and disk together holds it, too.
    """

    def __init__(self, path: Path, *, on_step: Hook | None = None) -> None:
        """Open a database, making it where it is missing.

        Args:
            path: The file.
            on_step: Called with the name of each step of a write; for tests of crashes.

        Raises:
            CoordinatorError: It cannot be opened, or a newer version wrote it.
        """
        self.lock = threading.RLock()
        self.path = path
        self.on_step: Hook = on_step or (lambda _: None)
        with _reporting(path):
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            path.chmod(0o600)
            self._prepare()

    def _prepare(self) -> None:
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "busy_timeout = 5000"):
            self._connection.execute(f"PRAGMA {pragma}")
        # What is deleted is overwritten: a site's reply does not outlive its round.
        self._connection.execute("PRAGMA secure_delete = ON")
        found = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if found > SCHEMA_VERSION:
            raise CoordinatorError(
                f"{self.path} has schema {found}, this version knows {SCHEMA_VERSION}; upgrade"
                " fedtrain here"
            )
        if found == 0:
            self._connection.executescript(
                f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            )

    @contextmanager
    def writing(self, step: str, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """Run one transaction, all of it or nothing.

        Args:
            step: Its name, for tests: `STEP-written` before the commit, `STEP-committed` after it.
            durable: Return only when a power cut would not undo it.

        Raises:
            CoordinatorError: The disk refused; nothing was written.
        """
        with self.lock, _reporting(self.path):
            if durable:
                self._connection.execute("PRAGMA synchronous = FULL")
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                    self.on_step(f"{step}-written")
                    self._connection.execute("COMMIT")
                except BaseException:
                    self._roll_back()
                    raise
            finally:
                if durable:
                    self._connection.execute("PRAGMA synchronous = NORMAL")
        self.on_step(f"{step}-committed")

    def _roll_back(self) -> None:
        if self._connection.in_transaction:  # a full disk has rolled back already
            self._connection.execute("ROLLBACK")

    def read(self, query: str, values: tuple[Any, ...] = ()) -> Rows:
        """Return all rows of a query."""
        with self.lock, _reporting(self.path):
            return self._connection.execute(query, values).fetchall()

    def shrink(self) -> None:
        """Move the log into the database and cut it to nothing: what was deleted is gone."""
        with self.lock, _reporting(self.path):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close the file."""
        with self.lock:
            self._connection.close()


@contextmanager
def _reporting(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise CoordinatorError(
            f"{path}: {error}; make room or restore the file, then start the coordinator again"
        ) from error

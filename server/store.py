"""What was asked of sites and what they answered, on disk.

A task is a content for one site in one run; its id is a digest of all three, so that a coordinator
that is killed and started again asks for the same tasks, and finds the replies that it had. The
first reply to a task stays: a site that answers late, or another time, changes nothing. A round's
exchange is closed by writing, for whoever has not answered, that nobody did.
"""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .database import Database
from .spool import Spool, is_intact

FIRST_NODE: Final = 2  # 1 is the coordinator
_LABEL: Final = b"fedtrain link task v1"
_OPEN_TASKS: Final = """
SELECT t.id, t.run, t.round, t.site, t.seconds, c.size, c.digest, c.inline
FROM tasks t JOIN contents c ON c.digest = t.digest
WHERE t.id NOT IN (SELECT task FROM replies) ORDER BY t.place
"""
_DROP_CONTENTS: Final = "DELETE FROM contents WHERE digest NOT IN (SELECT digest FROM tasks)"


@dataclass(frozen=True)
class Content:
    """Some bytes: here, or in the spool where they are many.

    Attributes:
        size: Bytes.
        digest: SHA-256.
        inline: All of them, or None.
    """

    size: int
    digest: bytes
    inline: bytes | None = None


@dataclass(frozen=True)
class Task:
    """What one site is asked.

    Attributes:
        id: 32 bytes; see `compute_task_id`.
        run: 16 bytes.
        round: 0 before the first.
        site: Name.
        content: A packed parcel.
        seconds: How long its reply is waited for.
    """

    id: bytes
    run: bytes
    round: int
    site: str
    content: Content
    seconds: float


@dataclass(frozen=True)
class StoredReply:
    """What came back: a content, or what the coordinator wrote in the site's name."""

    task: bytes
    content: Content | None = None
    error: tuple[int, str] | None = None


def compute_task_id(run: bytes, site: str, message_type: str, digest: bytes) -> bytes:
    """Return the id of a task: the same for the same content, site and run.

    Args:
        run: 16 bytes.
        site: Name.
        message_type: Flower's, such as "train" or "train.secagg_share".
        digest: Of the content.
    """
    hasher = hashlib.sha256()
    for part in (_LABEL, run, site.encode(), message_type.encode(), digest):
        hasher.update(len(part).to_bytes(8, "big") + part)
    return hasher.digest()


class Store:
    """Tasks and replies, in a database and its spool."""

    def __init__(self, database: Database, spool: Spool) -> None:
        self._database = database
        self._spool = spool

    def find_nodes(self, sites: Iterable[str]) -> dict[str, int]:
        """Return the node id of each site: the same for ever, from `FIRST_NODE` on."""
        known: dict[str, int] = dict(self._database.read("SELECT site, node FROM nodes"))
        missing = sorted(set(sites) - set(known))
        if missing:
            first = max(known.values(), default=FIRST_NODE - 1) + 1
            rows = [(first + i, site) for i, site in enumerate(missing)]
            with self._database.writing("nodes", durable=True) as connection:
                connection.executemany("INSERT INTO nodes (node, site) VALUES (?, ?)", rows)
            known |= {site: node for node, site in rows}
        return {site: known[site] for site in sites}

    def add_tasks(self, tasks: Sequence[Task]) -> None:
        """Write the tasks of an exchange; those that are known already stay as they are."""
        contents = {task.content.digest: task.content for task in tasks}
        with self._database.writing("tasks") as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO contents (digest, size, inline) VALUES (?, ?, ?)",
                [(c.digest, c.size, c.inline) for c in contents.values()],
            )
            connection.executemany(
                "INSERT OR IGNORE INTO tasks (id, run, round, site, digest, seconds)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                [(t.id, t.run, t.round, t.site, t.content.digest, t.seconds) for t in tasks],
            )

    def add_reply(self, task: Task, content: Content) -> bool:
        """Write a site's reply; say whether it is the first to this task."""
        values = (content.size, content.digest, content.inline, None, None)
        return self._add_replies([(task, values)], step="reply", durable=False) == 1

    def add_errors(self, tasks: Iterable[Task], error: tuple[int, str]) -> None:
        """Write an error in the name of each of these tasks' sites; a reply that is there stays.

        Durable: what was once taken for missing is never found again after a power cut, when
        others have acted on it.
        """
        values = (None, None, None, *error)
        self._add_replies([(task, values) for task in tasks], step="errors", durable=True)

    def _add_replies(
        self, replies: list[tuple[Task, tuple[Any, ...]]], *, step: str, durable: bool
    ) -> int:
        rows = [(task.id, task.run, task.round, task.site, *values) for task, values in replies]
        with self._database.writing(step, durable=durable) as connection:
            cursor = connection.executemany(
                "INSERT OR IGNORE INTO replies"
                " (task, run, round, site, size, digest, inline, code, reason)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
            return cursor.rowcount

    def load_reply(self, task: bytes) -> StoredReply | None:
        """Return the reply to a task, or None as long as there is none."""
        rows = self._database.read(
            "SELECT size, digest, inline, code, reason FROM replies WHERE task = ?", (task,)
        )
        if not rows:
            return None
        size, digest, inline, code, reason = rows[0]
        if code is not None:
            return StoredReply(task, error=(code, reason))
        return StoredReply(task, Content(size, digest, inline))

    def load_open_tasks(self) -> list[Task]:
        """Return the tasks without a reply, in the order in which they were asked."""
        return [_to_task(row) for row in self._database.read(_OPEN_TASKS)]

    def find_answered(self, tasks: Iterable[bytes]) -> set[bytes]:
        """Return those of these tasks that have a reply."""
        wanted = set(tasks)
        return {task for (task,) in self._database.read("SELECT task FROM replies")} & wanted

    def find_described(self, run: bytes) -> set[str]:
        """Return the sites that have answered, themselves, before the first round of a run."""
        rows = self._database.read(
            "SELECT site FROM replies WHERE run = ? AND round = 0 AND code IS NULL", (run,)
        )
        return {site for (site,) in rows}

    def withdraw(self, tasks: Collection[bytes]) -> None:
        """Forget tasks that nobody waits for any more; their files go with the round."""
        with self._database.writing("withdraw") as connection:
            connection.executemany("DELETE FROM tasks WHERE id = ?", [(task,) for task in tasks])

    def forget_rounds(self, run: bytes, *, through: int) -> None:
        """Remove tasks and replies of the rounds 1 to `through`; what came before them stays."""
        self._forget("run = ? AND round BETWEEN 1 AND ?", (run, through))

    def forget_run(self, run: bytes) -> None:
        """Remove all that a run has asked and been answered."""
        self._forget("run = ?", (run,))
        self._database.shrink()

    def forget_errors(self, run: bytes) -> None:
        """Remove the errors among a run's replies, so that these sites are asked again."""
        with self._database.writing("forget-errors", durable=True) as connection:
            connection.execute("DELETE FROM replies WHERE run = ? AND code IS NOT NULL", (run,))

    def _forget(self, where: str, values: tuple[Any, ...]) -> None:
        with self._database.writing("forget") as connection:
            for table in ("tasks", "replies"):
                connection.execute(f"DELETE FROM {table} WHERE {where}", values)  # noqa: S608
            connection.execute(
                "DELETE FROM contents WHERE digest NOT IN (SELECT digest FROM tasks)"
            )
        self._sweep()

    def _sweep(self) -> None:
        """Remove the files that no row needs; what a crash leaves, the next call finds."""
        digests = self._database.read("SELECT digest FROM contents WHERE inline IS NULL")
        tasks = self._database.read("SELECT id FROM tasks")
        self._spool.sweep(contents={d for (d,) in digests}, tasks={t for (t,) in tasks})

    def recover(self) -> None:
        """Make database and spool agree after a crash.

        A file whose bytes are not what the database says (a power cut comes between the two) takes
        its row with it: the reply is asked for again, the task made anew.
        """
        lost = [
            task
            for task, digest in self._database.read(
                "SELECT task, digest FROM replies WHERE code IS NULL AND inline IS NULL"
            )
            if not is_intact(self._spool.get_reply(task, digest), digest)
        ]
        damaged = [
            digest
            for (digest,) in self._database.read("SELECT digest FROM contents WHERE inline IS NULL")
            if not is_intact(self._spool.get_content(digest), digest)
        ]
        with self._database.writing("recover") as connection:
            connection.executemany("DELETE FROM replies WHERE task = ?", [(t,) for t in lost])
            connection.executemany(
                "DELETE FROM tasks WHERE digest = ? AND id NOT IN (SELECT task FROM replies)",
                [(digest,) for digest in damaged],
            )
            connection.execute(
                "DELETE FROM contents WHERE digest NOT IN (SELECT digest FROM tasks)"
            )
        for digest in damaged:
            self._spool.get_content(digest).unlink(missing_ok=True)
        self._sweep()


def _to_task(row: tuple[Any, ...]) -> Task:
    id_, run, round_, site, seconds, size, digest, inline = row
    return Task(id_, run, round_, site, Content(size, digest, inline), seconds)

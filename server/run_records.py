r"""The runs that were submitted, in the order in which they were, and where each stands.

queued --> running --> finished
|         |  \--> failed, with the reason
\---------+----> stopped, by whom         (failed and stopped: resume, queued again)
"""

import json
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Final, Literal

from fedtrain.config import Config, to_toml
from fedtrain.errors import ConfigError

from .database import Database
from .draws import SECRET_BYTES

RunStatus = Literal["queued", "running", "finished", "stopped", "failed"]
RESUMABLE: Final = ("stopped", "failed")


@dataclass(frozen=True)
class RunRecord:
    """A submitted run.

    Attributes:
        run: Its name at the coordinator, and of its run directory.
        config: Resolved, as TOML.
        submitted_by: Who submitted it.
        submitted_ms: When, milliseconds since 1970.
        sites: Its sites, by name.
        secret: 32 bytes that its draws come from.
        roster: The signed roster that it began with, encoded; None before.
        status: Where it stands.
        reason: Why it was stopped or failed.
        sitting: How often it was submitted or resumed: what its run directory counts, too.
        since: The last round that was committed when this sitting began.
        round: The last one that is committed.
        rounds: How many there are.
        id: 16 bytes by which sites know it; None before it has begun.
    """

    run: str
    config: str
    submitted_by: str
    submitted_ms: int
    sites: tuple[str, ...]
    secret: bytes
    roster: bytes | None
    status: RunStatus
    reason: str
    sitting: int
    since: int
    round: int
    rounds: int
    id: bytes | None


_NAMES: Final = tuple(each.name for each in fields(RunRecord))
_COLUMNS: Final = ", ".join(_NAMES)


class RunRecords:
    """The runs, in a database."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def add(self, config: Config, *, submitted_by: str, sites: Sequence[str]) -> RunRecord:
        """Queue a run; durable when this returns."""
        now = self._clock()
        with self._database.lock:
            run = self._choose_name(config.run.name, now)
            values = (
                run,
                to_toml(config),
                submitted_by,
                int(now * 1000),
                json.dumps(list(sites)),
                secrets.token_bytes(SECRET_BYTES),
                config.rounds,
            )
            with self._database.writing("submit", durable=True) as connection:
                connection.execute(
                    "INSERT INTO runs (run, config, submitted_by, submitted_ms, sites, secret,"
                    " rounds, status, reason, sitting, since, round)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, 'queued', '', 1, 0, 0)",
                    values,
                )
            return self.get(run)

    def get(self, run: str) -> RunRecord:
        """Return a run.

        Raises:
            ConfigError: There is none of this name.
        """
        rows = self._database.read(f"SELECT {_COLUMNS} FROM runs WHERE run = ?", (run,))  # noqa: S608
        if not rows:
            raise ConfigError(f"no run {run[:80]!r}; fedtrain server runs lists what there is")
        return _to_record(rows[0])

    def list(self) -> list[RunRecord]:
        """Return all runs, in the order of submission."""
        rows = self._database.read(f"SELECT {_COLUMNS} FROM runs ORDER BY place")  # noqa: S608
        return [_to_record(row) for row in rows]

    def find_next(self) -> RunRecord | None:
        """Return the run that goes on, or else the first in the queue."""
        open_ = [record for record in self.list() if record.status in ("running", "queued")]
        return min(open_, key=lambda record: record.status != "running", default=None)

    def begin(self, run: str, *, roster: bytes, id_: bytes) -> None:
        """Write that a run has begun: with which roster, the first time, and its id."""
        with self._database.writing("begin", durable=True) as connection:
            connection.execute(
                "UPDATE runs SET status = 'running', reason = '', id = ?,"
                " roster = coalesce(roster, ?) WHERE run = ?",
                (id_, roster, run),
            )

    def note_round(self, run: str, round_: int) -> None:
        """Write which round was committed last."""
        self._update("round", "UPDATE runs SET round = ? WHERE run = ?", (round_, run))

    def end(self, run: str, status: RunStatus, reason: str = "") -> None:
        """Write how a run ended."""
        query = "UPDATE runs SET status = ?, reason = ? WHERE run = ?"
        self._update("end", query, (status, reason, run), durable=True)

    def resume(self, run: str) -> None:
        """Queue a run that was stopped or failed again.

        Raises:
            ConfigError: It is neither.
        """
        with self._database.lock:
            status = self.get(run).status
            if status not in RESUMABLE:
                raise ConfigError(
                    f"run {run!r} is {status}; only one that was stopped or has failed is resumed"
                )
            self._update(
                "resume",
                "UPDATE runs SET status = 'queued', reason = '', sitting = sitting + 1,"
                " since = round WHERE run = ?",
                (run,),
                durable=True,
            )

    def _update(
        self, step: str, query: str, values: tuple[Any, ...], *, durable: bool = False
    ) -> None:
        with self._database.writing(step, durable=durable) as connection:
            connection.execute(query, values)

    def _choose_name(self, name: str, now: float) -> str:
        taken = {record.run for record in self.list()}
        day = datetime.fromtimestamp(now, UTC).strftime("%Y%m%d")
        number = 1
        while f"{name}-{day}-{number}" in taken:
            number += 1
        return f"{name}-{day}-{number}"


def _to_record(row: tuple[Any, ...]) -> RunRecord:
    values = dict(zip(_NAMES, row, strict=True))
    return RunRecord(**values | {"sites": tuple(json.loads(values["sites"]))})

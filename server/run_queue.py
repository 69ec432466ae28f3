"""The thread that runs federations: one at a time, in the order of submission.

A coordinator that is started again goes on with the run that was under way, from its last commit;
within a round, from the last reply. What a run says of its end stands in its run directory first,
then in the database: a kill between the two is made good at the next start.
"""

import logging
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fedtrain.config import Config, parse_config
from fedtrain.costs import RoundCost, append_cost
from fedtrain.errors import FedtrainError, RunDirectoryError, RunFailedError
from fedtrain.journal import logging_beside
from fedtrain.membership.records import SignedMembership
from fedtrain.runs import RunDirectory
from fedtrain.secagg.codec import decode, encode
from fedtrain.secagg.messages import SignedRoster
from fedtrain.secagg.roster import PinnedRoster

from .draws import Draws
from .faults import CoordinatorError, RunInterrupted
from .run_records import RunRecord, RunRecords, RunStatus

if TYPE_CHECKING:
    from .link_grid import LinkGrid

log = logging.getLogger("fedtrain.coordinator")
RUN_LOGGER: Final = "fedtrain.server"
RUNS_FOLDER: Final = "runs"
MOST_VOID: Final = 3  # rounds in a row
_EVERY_ROUND: Final = 2**31
_RETRY_SECONDS: Final = 5.0  # after a disk that was full


@dataclass(frozen=True)
class Surroundings:
    """What a run is given by the coordinator.

    Attributes:
        make_grid: Makes the grid of a run: its id, its sites, and whether it is to end.
        forget_rounds: Removes what is kept of a run's rounds, up to one.
        forget_run: Removes all that is kept of a run.
        forget_errors: Removes the errors among its replies.
        withdraw: Takes back what sites are asked.
        get_membership: Returns the membership as it is now.
        wake: Lets everybody who waits look whether he still should.
        root_public_key: The pinned root's.
    """

    make_grid: Callable[[bytes, tuple[str, ...], Callable[[], bool]], "LinkGrid"]
    forget_rounds: Callable[[bytes, int], None]
    forget_run: Callable[[bytes], None]
    forget_errors: Callable[[bytes], None]
    withdraw: Callable[[], None]
    get_membership: Callable[[], SignedMembership]
    wake: Callable[[], None]
    root_public_key: bytes


class RunQueue:
    """Runs what was submitted."""

    def __init__(self, folder: Path, records: RunRecords, surroundings: Surroundings) -> None:
        """Take a coordinator's folder; `start` begins.

        Args:
            folder: The coordinator's.
            records: The runs.
            surroundings: What a run needs.
        """
        self._folder = folder / RUNS_FOLDER
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._records = records
        self._surroundings = surroundings
        self._changed = threading.Condition()
        self._is_closing = False
        self._stopped: dict[str, str] = {}
        self._running: str | None = None
        self._grid: LinkGrid | None = None
        self._thread = threading.Thread(target=self._work, name="runs", daemon=True)

    def start(self) -> None:
        """Begin with the run that was under way, or the first in the queue."""
        self._thread.start()

    def close(self) -> None:
        """Finish the commit under way, and end; the run goes on at the next start."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._surroundings.wake()
        if self._thread.is_alive():
            self._thread.join()

    def notify(self) -> None:
        """Say that a run was queued."""
        with self._changed:
            self._changed.notify_all()

    def stop(self, run: str, who: str) -> RunStatus:
        """Stop a run; one that is under way ends at its next wait or commit.

        Raises:
            ConfigError: There is no such run.
        """
        with self._changed:
            record = self._records.get(run)
            if run != self._running:
                if record.status in ("queued", "running"):
                    self._records.end(run, "stopped", f"stopped by {who}")
                return self._records.get(run).status
            self._stopped[run] = who
        self._surroundings.wake()
        with self._changed:
            self._changed.wait_for(lambda: self._running != run, _RETRY_SECONDS)
        return self._records.get(run).status

    def resume(self, run: str) -> None:
        """Queue a run that was stopped or failed again.

        Raises:
            ConfigError: It is neither.
        """
        with self._changed:
            self._records.resume(run)
            self._changed.notify_all()

    @property
    def running(self) -> str | None:
        """The run that is under way, or None."""
        return self._running

    @property
    def waiting_for(self) -> tuple[str, ...]:
        """The sites that the run under way needs before it can begin."""
        grid = self._grid
        return () if grid is None else grid.waiting_for

    def get_path(self, run: str) -> Path:
        """Return where a run's directory is."""
        return self._folder / run

    def _work(self) -> None:
        load_training()
        while True:
            with self._changed:
                record = None
                while not self._is_closing and (record := self._find_next()) is None:
                    self._changed.wait()
                if record is None or self._is_closing:
                    return
                self._running = record.run
            try:
                self._run(record)
            except FedtrainError as error:  # the disk is full, even for saying so
                log.error("run_cannot_be_ended run=%s message=%s", record.run, error)
                with self._changed:
                    self._changed.wait_for(lambda: self._is_closing, _RETRY_SECONDS)
            except RunInterrupted:
                pass  # it goes on at the next start
            except Exception:
                log.exception("run_cannot_be_ended run=%s", record.run)
                with self._changed:
                    self._changed.wait_for(lambda: self._is_closing, _RETRY_SECONDS)
            finally:
                with self._changed:
                    self._running = self._grid = None
                    self._stopped.pop(record.run, None)
                    self._changed.notify_all()

    def _find_next(self) -> RunRecord | None:
        try:
            return self._records.find_next()
        except CoordinatorError as error:
            log.error("queue_cannot_be_read message=%s", error)
            return None

    def _run(self, record: RunRecord) -> None:
        """Run a federation to its end, and write how it ended.

        Raises:
            RunInterrupted: The coordinator ends; the run does not.
            FedtrainError: The end cannot be written.
        """
        try:
            run = self._open(record)
        except FedtrainError as error:
            log.error("run_cannot_be_opened run=%s message=%s", record.run, error)
            self._records.end(record.run, "failed", str(error))
            return
        try:
            status, reason = self._run_in(run, self._records.get(record.run))
            self._end(run, record.run, status, reason)
        finally:
            run.close()

    def _end(self, run: RunDirectory, name: str, status: RunStatus, reason: str) -> None:
        id_ = bytes.fromhex(run.state.run_id)
        if run.state.status != status:
            with suppress(RunDirectoryError):  # what ended it matters more
                run.finish(status, reason or None)  # type: ignore[arg-type]
        self._surroundings.withdraw()
        if status == "finished":
            self._surroundings.forget_run(id_)
        else:  # no site's reply stays at a coordinator whose run does not go on
            self._surroundings.forget_rounds(id_, _EVERY_ROUND)
        self._records.end(name, status, reason)
        log.info("run_ended run=%s status=%s reason=%s", name, status, reason or "-")

    def _open(self, record: RunRecord) -> RunDirectory:
        """Open a run's directory, making it at first; write that this sitting has begun."""
        path = self.get_path(record.run)
        config = parse_config(record.config, name=record.run)
        if path.exists() and not (path / "state.json").exists():  # killed while it was made
            shutil.rmtree(path)
        run = RunDirectory.resume(path) if path.exists() else RunDirectory.create(path, config)
        try:
            id_ = bytes.fromhex(run.state.run_id)
            while run.state.sittings < record.sitting:
                self._surroundings.forget_errors(id_)
                run.mark_running()
            roster = encode(self._surroundings.get_membership().membership.roster)
            self._records.begin(record.run, roster=bytes(roster), id_=id_)
        except BaseException:
            run.close()
            raise
        return run

    def _run_in(self, run: RunDirectory, record: RunRecord) -> tuple[RunStatus, str]:
        """Return how a run ended; what its directory says already, of before a kill, holds."""
        if run.state.status == "finished":
            run.finish("finished")  # again: it may have been killed before the files were sealed
            return _judge(run)
        if run.state.status != "running":
            return run.state.status, run.state.reason or ""
        with logging_beside(run.path / "log.txt", RUN_LOGGER):
            try:
                self._federate(run, record)
                return _judge(run)
            except RunInterrupted:
                if record.run not in self._stopped:
                    raise
                return "stopped", f"stopped by {self._stopped[record.run]}"
            except FedtrainError as error:
                log.error("run_failed run=%s kind=%s message=%s", record.run, error.code, error)
                return "failed", str(error)
            except Exception as error:
                log.exception("run_failed run=%s kind=internal", record.run)
                return "failed", f"{type(error).__name__}; the coordinator's log has the details"

    def _federate(self, run: RunDirectory, record: RunRecord) -> None:
        from .app import run_federation

        roster = decode(record.roster or b"", SignedRoster)
        grid = self._surroundings.make_grid(
            bytes.fromhex(run.state.run_id), record.sites, lambda: self._is_over(record.run)
        )
        self._grid = grid
        progress = _Progress(
            grid, run, lambda round_: self._records.note_round(record.run, round_), record.since
        )
        run_federation(
            grid,
            run,
            progress,
            draws=Draws.from_secret(record.secret),
            roster=PinnedRoster(roster, self._surroundings.root_public_key, simulated=False),
        )

    def _is_over(self, run: str) -> bool:
        return self._is_closing or run in self._stopped


def load_training() -> None:
    """Load what a run needs: torch and Flower, which take seconds that nobody should wait for."""
    import torch

    from . import app, link_grid, submission  # noqa: F401 - loaded here, used where they are

    torch.set_num_threads(1)  # the same sums whatever the machine's number of cores


class _Progress:
    """Follows a run: forgets what a committed round asked, and ends a run that gets nowhere."""

    def __init__(
        self,
        grid: "LinkGrid",
        run: RunDirectory,
        note_round: Callable[[int], None],
        since: int,
    ) -> None:
        self._grid = grid
        self._run = run
        self._config = run.config
        self._note_round = note_round
        done = [line for line in run.read_metrics() if line["round"] > since]
        self._void = 0
        for metrics in done:
            self._count(metrics)

    def on_start(self, *, rounds: int, done: int, sites: int) -> None:
        """The rounds begin, or go on."""
        log.info("rounds_begin rounds=%d done=%d sites=%d", rounds, done, sites)
        self._write_cost(0)
        self._note_round(done)
        self._grid.begin_rounds(done)

    def on_round(self, metrics: dict[str, Any]) -> None:
        """A round is committed.

        Raises:
            RunDirectoryError: Its cost cannot be written.
            RunFailedError: Too many rounds in a row changed nothing.
            RunInterrupted: The run is to leave its thread.
        """
        self._write_cost(metrics["round"])
        self._note_round(metrics["round"])
        self._grid.begin_rounds(metrics["round"])
        self._count(metrics)
        if self._void >= MOST_VOID:
            reason = metrics.get("void", "too few sites' updates were usable")
            raise RunFailedError(
                f"{self._void} rounds in a row changed nothing, the last: {reason}; its log.txt has"
                " each site's reason; resume it once that is mended"
            )
        self._grid.check_over()

    def _write_cost(self, number: int) -> None:
        with self._run.writing():
            append_cost(self._run.path, RoundCost(number, self._grid.meter.take()))

    def _count(self, metrics: dict[str, Any]) -> None:
        if is_void(metrics, self._config) and not is_small_cohort(metrics, self._config):
            self._void += 1
        elif not is_void(metrics, self._config):
            self._void = 0


def is_void(metrics: dict[str, Any], config: Config) -> bool:
    """Say whether a round changed nothing, by its line."""
    return "void" in metrics or metrics["survivors"] < config.federation.min_survivors


def is_small_cohort(metrics: dict[str, Any], config: Config) -> bool:
    """Say whether a round's random cohort was too small for anybody to be asked."""
    if config.federation.site_sample_rate is None:
        return False
    secure = config.secure_aggregation
    least = 1 if secure.mode == "off" else secure.min_cohort
    cohort: int = metrics["cohort"]
    return cohort < least


def _judge(run: RunDirectory) -> tuple[RunStatus, str]:
    """Return how a run ended that went through all its rounds: one without any update failed."""
    metrics = run.read_metrics()
    if metrics and not any(line["survivors"] for line in metrics):
        reason = metrics[-1].get("void", "no site's update was usable")
        return "failed", f"none of the {len(metrics)} rounds changed the model; the last: {reason}"
    return "finished", ""

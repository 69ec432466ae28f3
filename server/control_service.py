"""The calls of operators: each says which roles may make it, and each change is audited.

A refused call is audited, too. Lists and the status are read so often that they are not.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import grpc

from fedtrain.config import Config
from fedtrain.errors import ConfigError, FedtrainError
from fedtrain.link import link_pb2, link_pb2_grpc
from fedtrain.link.contract import CHUNK_BYTES
from fedtrain.link.status import answering
from fedtrain.link.tls import Peer
from fedtrain.membership.records import (
    ADMIN,
    AUDITOR,
    RESEARCHER,
    SITE_ROLE,
    SignedMembership,
)

from .audit_log import AuditLog
from .gate import Gate, RoleError
from .run_queue import RunQueue
from .run_records import RunRecord, RunRecords
from .sessions import Sessions

log = logging.getLogger("fedtrain.coordinator")
_READERS: Final = (ADMIN, RESEARCHER, AUDITOR)
_RUNNERS: Final = (ADMIN, RESEARCHER)
_FOLLOW_SECONDS: Final = 0.5
_LOG_BYTES: Final = 2**16
_MODELS: Final = ".safetensors"  # an auditor reads reports and ledgers, not models


class ControlService(link_pb2_grpc.ControlServicer):
    """Answers operators."""

    def __init__(
        self,
        gate: Gate,
        audit: AuditLog,
        records: RunRecords,
        queue: RunQueue,
        sessions: Sessions,
        *,
        log_path: Path,
        get_membership: Callable[[], SignedMembership],
        install: Callable[[bytes], int],
        describe: Callable[[], link_pb2.GetStatusReply],
        is_closing: Callable[[], bool],
    ) -> None:
        """Take what the coordinator has.

        Args:
            gate: Who may call.
            audit: What operators did.
            records: The runs.
            queue: Runs them.
            sessions: Which sites are connected.
            log_path: The coordinator's own log.
            get_membership: Returns the membership as it is now.
            install: Takes a newer membership; returns its version.
            describe: Returns the coordinator's status.
            is_closing: Whether the coordinator ends.
        """
        self._gate = gate
        self._audit = audit
        self._records = records
        self._queue = queue
        self._sessions = sessions
        self._log_path = log_path
        self._get_membership = get_membership
        self._install = install
        self._describe = describe
        self._is_closing = is_closing

    @answering
    def Submit(  # noqa: N802 - the contract's name
        self, request: link_pb2.SubmitRequest, context: grpc.ServicerContext
    ) -> link_pb2.SubmitReply:
        """Queue a run."""
        from .submission import choose_sites, settle_scenario  # with torch: seconds, once

        with self._audited(context, _RUNNERS, "submit", request.name) as peer:
            sites = choose_sites(list(request.sites), self._list_sites())
            config: Config = settle_scenario(
                request.scenario,
                list(request.overrides),
                name=request.name[:200] or "scenario",
                sites=sites,
            )
            record = self._records.add(config, submitted_by=peer.name, sites=sites)
            self._queue.notify()
            log.info("run_queued run=%s by=%s", record.run, peer.name)
            return link_pb2.SubmitReply(run=record.run)

    @answering
    def ListRuns(  # noqa: N802
        self,
        request: link_pb2.ListRunsRequest,  # noqa: ARG002
        context: grpc.ServicerContext,
    ) -> link_pb2.ListRunsReply:
        """Return all runs."""
        with self._gate.admit(context, _READERS, limited=True):
            runs = [_summarise(record, self._queue) for record in self._records.list()]
            return link_pb2.ListRunsReply(runs=runs)

    @answering
    def ListSites(  # noqa: N802
        self,
        request: link_pb2.ListSitesRequest,  # noqa: ARG002
        context: grpc.ServicerContext,
    ) -> link_pb2.ListSitesReply:
        """Return all sites of the membership."""
        with self._gate.admit(context, _READERS, limited=True):
            states = self._sessions.describe(self._list_sites())
            return link_pb2.ListSitesReply(
                sites=[
                    link_pb2.SiteSummary(
                        name=state.name,
                        state=state.state,
                        version=state.version,
                        seen_ms=state.seen_ms,
                        clock_skew_ms=state.clock_skew_ms,
                        membership_version=state.membership_version,
                    )
                    for state in states
                ]
            )

    @answering
    def GetStatus(  # noqa: N802
        self,
        request: link_pb2.GetStatusRequest,  # noqa: ARG002
        context: grpc.ServicerContext,
    ) -> link_pb2.GetStatusReply:
        """Return how the coordinator is."""
        with self._gate.admit(context, _READERS, limited=True):
            return self._describe()

    @answering
    def FollowLog(  # noqa: N802
        self, request: link_pb2.FollowLogRequest, context: grpc.ServicerContext
    ) -> Iterator[link_pb2.LogLines]:
        """Send a log, and what is written to it from now on."""
        with self._audited(context, _RUNNERS, "log", request.run):
            path = self._log_path
            if request.run:
                path = self._queue.get_path(self._records.get(request.run).run) / "log.txt"
            at = 0
            while context.is_active() and not self._is_closing():
                text, at = _read_from(path, at)
                if text:
                    yield link_pb2.LogLines(text=text)
                elif not request.follow:
                    return
                else:
                    time.sleep(_FOLLOW_SECONDS)

    @answering
    def StopRun(  # noqa: N802
        self, request: link_pb2.RunRequest, context: grpc.ServicerContext
    ) -> link_pb2.RunReply:
        """Stop a run; it can be resumed."""
        with self._audited(context, _RUNNERS, "stop", request.run) as peer:
            self._check_owner(peer, request.run)
            return link_pb2.RunReply(status=self._queue.stop(request.run, peer.name))

    @answering
    def ResumeRun(  # noqa: N802
        self, request: link_pb2.RunRequest, context: grpc.ServicerContext
    ) -> link_pb2.RunReply:
        """Queue a run again that was stopped or failed."""
        with self._audited(context, _RUNNERS, "resume", request.run) as peer:
            self._check_owner(peer, request.run)
            self._queue.resume(request.run)
            return link_pb2.RunReply(status=self._records.get(request.run).status)

    @answering
    def FetchRun(  # noqa: N802
        self, request: link_pb2.RunRequest, context: grpc.ServicerContext
    ) -> Iterator[link_pb2.FileChunk]:
        """Send the files of a run's directory; to an auditor all but the models."""
        with self._audited(context, _READERS, "fetch", request.run) as peer:
            path = self._queue.get_path(self._records.get(request.run).run)
            if not path.is_dir():
                raise ConfigError(f"run {request.run!r} has not begun; there is nothing to fetch")
            for name in list_files(path, with_models=peer.role != AUDITOR):
                yield from _send_file(path, name)

    @answering
    def InstallMembership(  # noqa: N802
        self, request: link_pb2.InstallMembershipRequest, context: grpc.ServicerContext
    ) -> link_pb2.InstallMembershipReply:
        """Take a newer membership; who is not in it any more is cut at once."""
        with self._audited(context, (ADMIN,), "install-membership", ""):
            return link_pb2.InstallMembershipReply(version=self._install(request.membership))

    @contextmanager
    def _audited(
        self, context: grpc.ServicerContext, roles: Collection[str], what: str, detail: str
    ) -> Iterator[Peer]:
        """Let a call in, and write how it ended; what cannot be written is not done."""
        peer = self._gate.identify(context)
        try:
            with self._gate.admit(context, roles, limited=True):
                self._audit.record(peer.name, peer.role, what, detail=detail, outcome="begun")
                yield peer
        except FedtrainError as error:
            self._audit.record(
                peer.name, peer.role, what, detail=detail, outcome=f"refused: {error}"
            )
            raise
        self._audit.record(peer.name, peer.role, what, detail=detail, outcome="done")

    def _check_owner(self, peer: Peer, run: str) -> None:
        record = self._records.get(run)
        if peer.role != ADMIN and record.submitted_by != peer.name:
            raise RoleError(
                f"run {run!r} is {record.submitted_by!r}'s; only it or an admin may do this"
            )

    def _list_sites(self) -> list[str]:
        entries = self._get_membership().membership.entries
        return [entry.name for entry in entries if entry.role == SITE_ROLE]


def list_files(path: Path, *, with_models: bool) -> list[str]:
    """Return the files of a run directory that are handed out, by name."""
    names = [each.relative_to(path) for each in path.rglob("*") if each.is_file()]
    return sorted(
        str(name)
        for name in names
        if name.name != "lock"
        and not name.name.endswith(".partial")
        and (with_models or name.suffix != _MODELS)
    )


def _send_file(path: Path, name: str) -> Iterator[link_pb2.FileChunk]:
    with (path / name).open("rb") as file:
        yield link_pb2.FileChunk(name=name, data=file.read(CHUNK_BYTES))
        while data := file.read(CHUNK_BYTES):
            yield link_pb2.FileChunk(data=data)


def _read_from(path: Path, at: int) -> tuple[str, int]:
    """Return what a log holds from a byte on, and where that ends: whole lines where it can."""
    try:
        with path.open("rb") as file:
            file.seek(at)
            data = file.read(_LOG_BYTES)
    except FileNotFoundError:
        return "", at
    whole = data[: data.rfind(b"\n") + 1] or (data if len(data) == _LOG_BYTES else b"")
    return whole.decode("utf-8", "replace"), at + len(whole)


def _summarise(record: RunRecord, queue: RunQueue) -> link_pb2.RunSummary:
    reason = record.reason
    waiting = queue.waiting_for if record.run == queue.running else ()
    if waiting:
        reason = f"waits for {', '.join(waiting)}"
    return link_pb2.RunSummary(
        run=record.run,
        status=record.status,
        reason=reason,
        round=record.round,
        rounds=record.rounds,
        submitted_by=record.submitted_by,
        submitted_ms=record.submitted_ms,
        sites=record.sites,
    )

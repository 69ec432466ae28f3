"""A coordinator: what its folder holds, put together and served until it is told to end."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc

from fedtrain.link import link_pb2, link_pb2_grpc
from fedtrain.link.pieces import add_to_server
from fedtrain.link.tls import check_server, make_server_credentials, make_server_options
from fedtrain.membership.adoption import adopt_membership
from fedtrain.membership.certificates import check_times
from fedtrain.membership.member import load_member
from fedtrain.membership.membership import verify_membership
from fedtrain.membership.records import COORDINATOR, SITE_ROLE, SignedMembership
from fedtrain.protocol import LEFT

from .audit_log import FILE as AUDIT_FILE
from .audit_log import AuditLog
from .control_service import ControlService
from .database import FILE as DATABASE_FILE
from .database import Database, Hook
from .faults import CoordinatorError
from .folder import LOG_FILE
from .gate import Gate
from .link_service import VERSION, LinkService, LinkSettings
from .memory import limit_arenas
from .monitoring import Monitoring
from .outstanding import Outstanding
from .run_queue import RunQueue, Surroundings
from .run_records import RunRecords
from .sessions import Sessions
from .settings import ServerSettings, choose_listen, load_settings
from .spool import FOLDER as SPOOL_FOLDER
from .spool import Spool
from .store import Store
from .streams import StreamWatch

if TYPE_CHECKING:
    from .link_grid import LinkGrid

log = logging.getLogger("fedtrain.coordinator")
_MOST_CALLS: Final = 1024  # in progress; each has a thread while it lasts
_GRACE_SECONDS: Final = 3.0  # for calls in progress at the end


class Coordinator:
    """The parts of a coordinator, put together."""

    def __init__(self, folder: Path, *, on_step: Hook | None = None) -> None:
        """Open a coordinator's folder; `serve` begins.

        Args:
            folder: Of a coordinator that has joined a federation.
            on_step: Called with the name of each step of a write to disk; for tests of crashes.

        Raises:
            FedtrainError: A part of it is missing or does not hold.
        """
        self._folder = folder
        self.settings: ServerSettings = load_settings(folder)
        member = load_member(folder)
        if member.role != COORDINATOR:
            raise CoordinatorError(f"{folder} is a {member.role}'s folder, not a coordinator's")
        check_times(member.certificate, now=int(time.time()))
        self._member = member
        self._signed = member.signed
        self._started_ms = int(time.time() * 1000)
        self._is_closing = False
        self._installing = threading.Lock()
        self._server: grpc.Server | None = None
        self.audit = AuditLog(folder / AUDIT_FILE)
        self._database = Database(folder / DATABASE_FILE, on_step=on_step)
        self._spool = Spool(folder / SPOOL_FOLDER)
        self._store = Store(self._database, self._spool)
        self._store.recover()
        self._outstanding = Outstanding(self._database, self._store)
        self.sessions = Sessions(self._database, poll_seconds=self.settings.poll_seconds)
        self.records = RunRecords(self._database)
        self._watch = StreamWatch(3.0 * self.settings.poll_seconds)
        self._gate = Gate(self.get_membership)
        self._monitoring = Monitoring(
            count_online=lambda: len(self.sessions.list_online()),
            count_open=self._outstanding.count,
            count_queued=self._count_unfinished,
        )
        self.queue = RunQueue(folder, self.records, self._make_surroundings())

    def get_membership(self) -> SignedMembership:
        """Return the membership as it is now."""
        return self._signed

    def serve(self, *, metrics_port: int | None = None) -> None:
        """Listen, and go on with the run that was under way.

        Args:
            metrics_port: Instead of the settings'.

        Raises:
            FedtrainError: It cannot listen, or not as safely as it must.
        """
        limit_arenas()
        self._server = self._make_server()
        self._server.start()
        try:
            check_server(self._folder, self.settings.address, listen=choose_listen(self.settings))
        except BaseException:
            self._server.stop(None).wait()
            raise
        port = self.settings.metrics_port if metrics_port is None else metrics_port
        self._monitoring.serve(port)
        self._watch.start()
        self.queue.start()
        self.audit.record(self._member.name, COORDINATOR, "start", detail=VERSION, outcome="done")
        log.info("coordinator_listens address=%s version=%s", self.settings.address, VERSION)

    def close(self) -> None:
        """Finish the commit under way, then stop serving; runs go on at the next start."""
        self._is_closing = True
        self._wake()
        self.queue.close()
        if self._server is not None:
            self._server.stop(_GRACE_SECONDS).wait()
            self._watch.close()
            self._monitoring.close()
            self.audit.record(self._member.name, COORDINATOR, "stop", outcome="done")
        self._database.close()
        log.info("coordinator_stopped")

    def install(self, data: bytes) -> int:
        """Take a newer membership, and cut who is not in it any more; return its version.

        Raises:
            MembershipError: It does not hold, or is not newer.
            SiteError: It cannot be written.
        """
        signed = verify_membership(data, self._member.root_public_key)
        with self._installing:
            adopt_membership(self._folder, signed)
            self._signed = signed
            gone = self.sessions.cut(self._list_sites())
            self._outstanding.answer_for_strangers(self._list_sites(), LEFT)
            self._wake()
        log.info(
            "membership_installed version=%d cut=%s", signed.membership.version, ",".join(gone)
        )
        return signed.membership.version

    def _make_server(self) -> grpc.Server:
        server = grpc.server(
            ThreadPoolExecutor(_MOST_CALLS, thread_name_prefix="call"),
            options=make_server_options(),
            maximum_concurrent_rpcs=_MOST_CALLS,
        )
        link = LinkService(
            self._gate,
            self.sessions,
            self._outstanding,
            self._spool,
            settings=LinkSettings(self.settings.poll_seconds, self.settings.largest_content),
            watch=self._watch,
            monitoring=self._monitoring,
            get_membership=self.get_membership,
            is_closing=lambda: self._is_closing,
        )
        control = ControlService(
            self._gate,
            self.audit,
            self.records,
            self.queue,
            self.sessions,
            log_path=self._folder / LOG_FILE,
            get_membership=self.get_membership,
            install=self.install,
            describe=self.describe,
            is_closing=lambda: self._is_closing,
        )
        add_to_server(link, server)
        link_pb2_grpc.add_ControlServicer_to_server(control, server)
        listen = choose_listen(self.settings)
        try:
            server.add_secure_port(listen, make_server_credentials(self._folder))
        except RuntimeError as error:
            raise CoordinatorError(
                f"cannot listen on {listen}: it is taken, or not of this machine; change listen in"
                " server.toml"
            ) from error
        return server

    def describe(self) -> link_pb2.GetStatusReply:
        """Return how the coordinator is."""
        membership = self._signed.membership
        runs = self.records.list()
        sites = self._list_sites()
        ends = self._member.certificate.not_valid_after_utc
        return link_pb2.GetStatusReply(
            version=VERSION,
            federation=membership.federation,
            membership_version=membership.version,
            started_ms=self._started_ms,
            running=self.queue.running or "",
            queued=sum(record.status == "queued" for record in runs),
            sites=len(sites),
            online=len(self.sessions.list_online() & set(sites)),
            certificate_ends_ms=int(ends.timestamp() * 1000),
            audit_head=self.audit.head,
            audit_entries=self.audit.entries,
        )

    def _make_surroundings(self) -> Surroundings:
        return Surroundings(
            make_grid=self.make_grid,
            forget_rounds=lambda id_, through: self._store.forget_rounds(id_, through=through),
            forget_run=self._store.forget_run,
            forget_errors=self._store.forget_errors,
            withdraw=lambda: self._outstanding.open_exchange([]),
            get_membership=self.get_membership,
            wake=self._wake,
            root_public_key=self._member.root_public_key,
        )

    def make_grid(
        self, run_id: bytes, sites: tuple[str, ...], is_over: Callable[[], bool]
    ) -> "LinkGrid":
        """Return the grid of a run: its id, its sites, and whether it is to end."""
        from .link_grid import LinkGrid  # with Flower, which the first call does not wait for

        return LinkGrid(
            self._outstanding,
            self._store,
            self._spool,
            self.sessions,
            run_id=run_id,
            nodes=self._store.find_nodes(sites),
            list_members=self._list_sites,
            is_over=is_over,
            wait_for_sites=self.settings.wait_for_sites,
        )

    def _wake(self) -> None:
        self._outstanding.wake_all()
        self.sessions.wake_all()

    def _list_sites(self) -> list[str]:
        entries = self._signed.membership.entries
        return [entry.name for entry in entries if entry.role == SITE_ROLE]

    def _count_unfinished(self) -> int:
        return sum(record.status in ("queued", "running") for record in self.records.list())

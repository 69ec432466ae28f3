"""The calls of sites: hello, poll, contents down and up, membership, leave.

Each can be made again: a call that was lost on the way changes nothing the second time. A site is
who its certificate says; a task that is not its own does not exist for it.
"""

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

import grpc

from fedtrain.link import link_pb2, link_pb2_grpc
from fedtrain.link.contract import CHUNK_BYTES, CONTRACT, INLINE_BYTES, check_version
from fedtrain.link.faults import ContentError
from fedtrain.link.pieces import Piece
from fedtrain.link.status import answering
from fedtrain.membership.records import SITE_ROLE, SignedMembership
from fedtrain.secagg.codec import encode

from .gate import Gate
from .monitoring import Monitoring
from .outstanding import Outstanding
from .sessions import Session, Sessions
from .spool import Spool
from .store import Content, Task
from .streams import StreamWatch
from .uploads import Uploads

log = logging.getLogger("fedtrain.coordinator")
VERSION: Final = version("fedtrain")
_ROLES: Final = (SITE_ROLE,)


@dataclass(frozen=True)
class LinkSettings:
    """What agents are told.

    Attributes:
        poll_seconds: The longest wait of a poll.
        largest_content: Most bytes of one content.
    """

    poll_seconds: int
    largest_content: int


class LinkService(link_pb2_grpc.LinkServicer):
    """Answers sites."""

    def __init__(
        self,
        gate: Gate,
        sessions: Sessions,
        outstanding: Outstanding,
        spool: Spool,
        *,
        settings: LinkSettings,
        watch: StreamWatch,
        monitoring: Monitoring,
        get_membership: Callable[[], SignedMembership],
        is_closing: Callable[[], bool],
    ) -> None:
        """Take what the coordinator has.

        Args:
            gate: Who may call.
            sessions: Who is connected.
            outstanding: What sites are asked.
            spool: Where large contents are.
            settings: What agents are told.
            watch: Ends streams that do not move.
            monitoring: Counts.
            get_membership: Returns the membership as it is now.
            is_closing: Whether the coordinator ends; waiting calls are woken then.
        """
        self._gate = gate
        self._sessions = sessions
        self._outstanding = outstanding
        self._uploads = Uploads(spool, outstanding, largest=settings.largest_content)
        self._spool = spool
        self._settings = settings
        self._watch = watch
        self._monitoring = monitoring
        self._get_membership = get_membership
        self._is_closing = is_closing

    @answering
    def Hello(  # noqa: N802 - the contract's name
        self, request: link_pb2.HelloRequest, context: grpc.ServicerContext
    ) -> link_pb2.HelloReply:
        """Begin a session."""
        with self._gate.admit(context, _ROLES) as peer:
            check_version((VERSION, CONTRACT), (request.version, request.contract))
            session = self._sessions.begin(
                peer.name,
                request.last_session,
                version=request.version[:64],
                membership_version=request.membership_version,
                clock_ms=request.clock_ms,
            )
            self._outstanding.wake(peer.name)  # the session that this one replaces
            log.info("site_connected site=%s version=%s", peer.name, session.version)
            return link_pb2.HelloReply(
                session=session.id,
                version=VERSION,
                contract=CONTRACT,
                membership_version=self._get_membership().membership.version,
                poll_seconds=self._settings.poll_seconds,
                largest_content=self._settings.largest_content,
                clock_ms=int(time.time() * 1000),
            )

    @answering
    def Poll(  # noqa: N802
        self, request: link_pb2.PollRequest, context: grpc.ServicerContext
    ) -> link_pb2.PollReply:
        """Take a reply, then wait for a task."""
        with self._in_session(context, request.session) as session:
            self._sessions.note_poll(session, is_paused=request.paused)
            if request.HasField("reply"):
                self._take_reply(session.site, request.reply)
            task = self._wait(session, request, context)
            self._gate.identify(context)  # it may have been revoked while it waited
            self._sessions.check(session)
            reply = link_pb2.PollReply(membership_version=self._get_membership().membership.version)
            if task is not None:
                reply.task.CopyFrom(self._describe(task))
            return reply

    @answering
    def Download(  # type: ignore[override]  # noqa: N802
        self, request: link_pb2.DownloadRequest, context: grpc.ServicerContext
    ) -> Iterator[Piece]:
        """Send a task's content from an offset on."""
        with (
            self._in_session(context, request.session) as session,
            self._watch.follow(context) as move,
        ):
            task = self._outstanding.find(request.task, session.site)
            if task is None:
                raise ContentError("the task is not asked any more; poll again")
            for offset, data in self._read(task.content, request.offset):
                yield Piece(offset, data)
                self._monitoring.count_down(len(data))
                move()

    @answering
    def FindUpload(  # noqa: N802
        self, request: link_pb2.UploadHeader, context: grpc.ServicerContext
    ) -> link_pb2.UploadReply:
        """Say how much of a reply is here."""
        with self._in_session(context, request.session) as session:
            task = self._outstanding.find(request.task, session.site)
            if task is None:  # answered or withdrawn: nothing more of it is wanted
                return link_pb2.UploadReply(offset=request.size, complete=True)
            with self._uploads.begin(task, request.size, request.digest) as upload:
                return upload.finish()

    @answering
    def Upload(  # type: ignore[override]  # noqa: N802
        self, request_iterator: Iterator[Piece], context: grpc.ServicerContext
    ) -> link_pb2.UploadReply:
        """Take a reply's content from an offset on."""
        first = next(request_iterator, None)
        if first is None or first.header is None:
            raise ContentError("an upload begins with its header")
        with (
            self._in_session(context, first.header.session) as session,
            self._watch.follow(context) as move,
        ):
            header = first.header
            task = self._outstanding.find(header.task, session.site)
            if task is None:
                return link_pb2.UploadReply(offset=header.size, complete=True)
            with self._uploads.begin(task, header.size, header.digest) as upload:
                chunk: Piece | None = first
                while chunk is not None:
                    if len(chunk.data):
                        upload.append(chunk.offset, chunk.data)
                        self._monitoring.count_up(len(chunk.data))
                    move()
                    chunk = next(request_iterator, None)
                return upload.finish()

    @answering
    def GetMembership(  # noqa: N802
        self,
        request: link_pb2.GetMembershipRequest,
        context: grpc.ServicerContext,
    ) -> link_pb2.GetMembershipReply:
        """Return the signed membership; a session is not needed for it."""
        with self._gate.admit(context, _ROLES) as peer:
            signed = self._get_membership()
            self._sessions.note_membership(peer.name, request.session, signed.membership.version)
            return link_pb2.GetMembershipReply(membership=bytes(encode(signed)))

    @answering
    def Leave(  # noqa: N802
        self, request: link_pb2.LeaveRequest, context: grpc.ServicerContext
    ) -> link_pb2.LeaveReply:
        """End a session in good order."""
        with self._in_session(context, request.session) as session:
            self._sessions.end(session)
            self._outstanding.wake(session.site)
            log.info("site_left site=%s", session.site)
            return link_pb2.LeaveReply()

    @contextmanager
    def _in_session(self, context: grpc.ServicerContext, session: bytes) -> Iterator[Session]:
        with self._gate.admit(context, _ROLES) as peer:
            entered = self._sessions.enter(peer.name, session)
            try:
                yield entered
            finally:
                self._sessions.leave_call(entered)

    def _wait(
        self, session: Session, request: link_pb2.PollRequest, context: grpc.ServicerContext
    ) -> Task | None:
        site = session.site

        def is_over() -> bool:
            return session.is_over or self._is_closing() or not context.is_active()

        is_waiting = threading.Event()

        def wake() -> None:  # in gRPC's own thread: at an end that nobody waits for, not at all
            if is_waiting.is_set():
                self._outstanding.wake(site)

        seconds = min(request.wait_seconds, self._settings.poll_seconds)
        if seconds:  # where the connection is cut, the call is woken and ends
            is_waiting.set()
            context.add_callback(wake)
        try:
            return self._outstanding.wait_for_task(
                site, seconds, is_over=is_over, takes_tasks=not request.paused
            )
        finally:
            is_waiting.clear()

    def _take_reply(self, site: str, reply: link_pb2.Reply) -> None:
        """Keep a small reply; one that was uploaded is kept already."""
        task = self._outstanding.find(reply.task, site)
        if task is None:
            return
        data, sent = reply.content.inline, reply.content
        if sent.size != len(data) or len(data) > INLINE_BYTES:
            raise ContentError(
                f"a reply of {sent.size} bytes came with {len(data)}; one of more than"
                f" {INLINE_BYTES} is uploaded before"
            )
        if hashlib.sha256(data).digest() != sent.digest:
            raise ContentError("the reply is not what its digest says; send it again")
        self._monitoring.count_up(len(data))
        self._outstanding.answer(task, Content(len(data), sent.digest, data))

    def _describe(self, task: Task) -> link_pb2.Task:
        content = task.content
        inline = content.inline or b""
        self._monitoring.count_task(len(inline))
        return link_pb2.Task(
            id=task.id,
            run=task.run,
            content=link_pb2.Content(size=content.size, digest=content.digest, inline=inline),
            deadline_ms=int(self._outstanding.get_seconds_left(task.id) * 1000),
        )

    def _read(self, content: Content, offset: int) -> Iterator[tuple[int, bytes]]:
        """Yield a content's chunks from an offset on."""
        if offset > content.size:
            raise ContentError(f"offset {offset} is behind the content's end, {content.size}")
        if content.inline is not None:
            for at in range(offset, content.size, CHUNK_BYTES):
                yield at, content.inline[at : at + CHUNK_BYTES]
            return
        descriptor = os.open(self._spool.get_content(content.digest), os.O_RDONLY)
        try:
            while offset < content.size:
                data = os.pread(descriptor, CHUNK_BYTES, offset)
                yield offset, data
                offset += len(data)
        finally:
            os.close(descriptor)

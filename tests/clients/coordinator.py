"""A coordinator for agents: the contract over sockets and mutual TLS, with nothing behind it."""

import hashlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc

from clients.custody import create_custody
from fedtrain.errors import PeerError
from fedtrain.link import link_pb2 as wire
from fedtrain.link import link_pb2_grpc
from fedtrain.link.contract import CONTRACT, INLINE_BYTES
from fedtrain.link.faults import ContentError
from fedtrain.link.parcel import Parcel, pack, unpack
from fedtrain.link.status import answering
from fedtrain.link.tls import make_server_credentials, make_server_options, read_peer
from fedtrain.secagg.codec import encode

CHUNK = 2**18


class SessionError(PeerError):
    code = "session"


class SecondAgentError(PeerError):
    code = "second-agent"


class Coordinator(link_pb2_grpc.LinkServicer):
    """Asks one site at a time; whatever it is told stays in its attributes.

    Attributes:
        replies: Content of each reply, by task.
        hellos: Every greeting.
        polls: How many polls were begun.
        downloaded, uploaded: Bytes of contents that crossed, those sent twice counted twice.
        cuts: Bytes after which each next stream is cut off.
    """

    def __init__(self, deployment, *, poll_seconds=1):
        self.deployment = deployment
        self.poll_seconds = poll_seconds
        self.contract, self.version, self.skew_ms = CONTRACT, "0.1.0", 0
        self.is_behind = None
        self.session, self.replaced = b"", None
        self.contents, self.order = {}, []
        self.replies, self.uploads = {}, {}
        self.hellos, self.polls, self.downloaded, self.uploaded = [], 0, 0, 0
        self.paused, self.cuts, self.left = [], [], 0
        self.changed = threading.Condition()
        self.largest = 2**32

    def ask(self, parcel):
        """Ask the site something; return the task's id."""
        content = b"".join(pack(parcel)) if isinstance(parcel, Parcel) else parcel
        task = hashlib.sha256(content + bytes([len(self.order)])).digest()
        with self.changed:
            self.contents[task] = content
            self.order.append(task)
            self.changed.notify_all()
        return task

    def wait(self, predicate, seconds=20.0):
        """Wait until something is so; fail the test if it never is."""
        until = time.monotonic() + seconds
        while not predicate():
            assert time.monotonic() < until, "it did not happen in time"
            time.sleep(0.02)

    def get_reply(self, task, seconds=20.0):
        self.wait(lambda: task in self.replies, seconds)
        return unpack(self.replies[task])

    def _find(self):
        return next((task for task in self.order if task not in self.replies), None)

    def _enter(self, context, session):
        read_peer(context, self.is_behind or self.deployment.membership)
        if session != self.session:
            raise SessionError("no such session; say hello again")
        self.replaced = None

    @answering
    def Hello(self, request, context):
        read_peer(context, self.is_behind or self.deployment.membership)
        self.hellos.append(request)
        if self.session and request.last_session not in (self.session, self.replaced):
            raise SecondAgentError("the site has another agent")
        self.replaced = request.last_session
        self.session = hashlib.sha256(self.session + bytes([len(self.hellos)])).digest()[:16]
        return wire.HelloReply(
            session=self.session,
            version=self.version,
            contract=self.contract,
            membership_version=self.deployment.membership.membership.version,
            poll_seconds=self.poll_seconds,
            largest_content=self.largest,
            clock_ms=int(time.time() * 1000) + self.skew_ms,
        )

    @answering
    def Poll(self, request, context):
        self._enter(context, request.session)
        self.polls += 1
        self.paused.append(request.paused)
        reply = request.reply
        if request.HasField("reply") and reply.task not in self.replies:
            data = reply.content.inline or self.uploads[reply.task]
            assert hashlib.sha256(data).digest() == reply.content.digest
            self.replies[reply.task] = bytes(data)
        with self.changed:
            self.changed.wait_for(
                lambda: (
                    (self._find() and not request.paused)
                    or not context.is_active()
                    or request.session != self.session
                ),
                min(request.wait_seconds, self.poll_seconds),
            )
        self._enter(context, request.session)
        answer = wire.PollReply(membership_version=self.deployment.membership.membership.version)
        task = self._find()
        if task and not request.paused:
            content = self.contents[task]
            answer.task.id, answer.task.deadline_ms = task, 60_000
            answer.task.content.size = len(content)
            answer.task.content.digest = hashlib.sha256(content).digest()
            if len(content) <= INLINE_BYTES:
                answer.task.content.inline = content
        return answer

    @answering
    def Download(self, request, context):
        self._enter(context, request.session)
        content = self.contents[request.task]
        end = request.offset + self.cuts.pop(0) if self.cuts else len(content)
        for at in range(request.offset, min(end, len(content)), CHUNK):
            data = content[at : min(at + CHUNK, end)]
            self.downloaded += len(data)
            yield wire.Chunk(offset=at, data=data)
        if end < len(content):
            context.abort(grpc.StatusCode.UNAVAILABLE, "the connection was cut")

    @answering
    def FindUpload(self, request, context):
        self._enter(context, request.session)
        return self._describe_upload(request)

    @answering
    def Upload(self, chunks, context):
        header = None
        end = self.cuts.pop(0) if self.cuts else None
        for chunk in chunks:
            if header is None:
                header = chunk.header
                self._enter(context, header.session)
            kept = self.uploads.setdefault(header.task, bytearray())
            assert chunk.offset == len(kept)
            kept += chunk.data
            self.uploaded += len(chunk.data)
            if end is not None and len(kept) >= end:
                context.abort(grpc.StatusCode.UNAVAILABLE, "the connection was cut")
        return self._describe_upload(header)

    def _describe_upload(self, header):
        kept = self.uploads.get(header.task, b"")
        complete = len(kept) == header.size
        if complete and hashlib.sha256(kept).digest() != header.digest:
            self.uploads.pop(header.task)
            raise ContentError("another digest")
        return wire.UploadReply(offset=len(kept), complete=complete)

    @answering
    def GetMembership(self, request, context):
        read_peer(context, self.deployment.membership)
        return wire.GetMembershipReply(membership=bytes(encode(self.deployment.membership)))

    @answering
    def Leave(self, request, context):
        self._enter(context, request.session)
        self.session, self.left = b"", self.left + 1
        return wire.LeaveReply()

    @contextmanager
    def serving(self):
        """Serve until the end of the block; may be called again, as after a restart."""
        server = grpc.server(ThreadPoolExecutor(16), options=make_server_options())
        link_pb2_grpc.add_LinkServicer_to_server(self, server)
        credentials = make_server_credentials(self.deployment.coordinator)
        assert server.add_secure_port(self.deployment.address, credentials)
        server.start()
        try:
            yield self
        finally:
            server.stop(None).wait()


def make_site(deployment, name="berlin"):
    """Return the folder of a site that has joined."""
    create_custody(deployment.path / name, name)
    return deployment.join(name)

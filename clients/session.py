"""One session with the coordinator: its calls, each with a deadline, each safe to be made again.

The main thread works and makes the calls; another thread beats and cuts short what stalls.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, Protocol, TypeVar

import grpc

from fedtrain.link import link_pb2 as wire
from fedtrain.link.contract import CONTRACT
from fedtrain.link.faults import UnavailableError
from fedtrain.link.link_pb2_grpc import LinkStub
from fedtrain.link.pieces import Piece, make_download, make_upload
from fedtrain.link.status import translate

log = logging.getLogger("fedtrain.clients")
CALL_SECONDS: Final = 15.0
# An upload's last answer comes after the coordinator has checked the digest of all of it.
UPLOAD_SECONDS: Final = 120.0
STALL_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.2
Answer = TypeVar("Answer")


class Cancellable(Protocol):
    """A call that can be ended from here."""

    def cancel(self) -> object:
        """End it."""


class InterruptedCall(Exception):  # noqa: N818 - no error: the agent ends, or its owner's wish changed
    """A call was cut short from this end; whether it arrived is not known."""


class Session:
    """The calls of one session.

    Attributes:
        id: Given by the coordinator; empty before `hello`.
        poll_seconds: The longest wait of a poll.
        heard: When the coordinator was heard last, monotonic seconds.
        clock_skew_ms: The coordinator's clock minus this one.
    """

    def __init__(self, channel: grpc.Channel, *, is_unwanted: Callable[[], bool]) -> None:
        """Take a channel.

        Args:
            channel: To the coordinator.
            is_unwanted: Whether streams are to be cut short: the agent stops.
        """
        self._channel = channel
        self._stub = LinkStub(channel)
        self._download = make_download(channel)
        self._upload = make_upload(channel)
        self._is_unwanted = is_unwanted
        self._stream: Cancellable | None = None
        self._moved = 0.0
        self.id = b""
        self.poll_seconds = 0.0
        self.heard = time.monotonic()
        self.clock_skew_ms = 0

    def hello(
        self, version: str, *, last_session: bytes, membership_version: int
    ) -> wire.HelloReply:
        """Begin the session.

        Args:
            version: Of fedtrain here.
            last_session: That this agent held last; empty at first.
            membership_version: That this site has.
        """
        request = wire.HelloRequest(
            version=version,
            contract=CONTRACT,
            last_session=last_session,
            membership_version=membership_version,
            clock_ms=int(time.time() * 1000),
        )
        begun = time.time()
        reply = self._call(self._stub.Hello, request)
        self.id, self.poll_seconds = reply.session, float(reply.poll_seconds)
        self.clock_skew_ms = reply.clock_ms - round((begun + time.time()) * 500)
        return reply

    def poll(
        self,
        reply: wire.Reply | None,
        *,
        waits: bool,
        paused: bool,
        is_over: Callable[[], bool],
    ) -> wire.PollReply:
        """Hand in a reply and wait for the next task.

        Args:
            reply: The last task's; None where there is none to hand in.
            waits: Whether to wait where there is no task yet.
            paused: Whether this site takes no task.
            is_over: Looked at meanwhile; true ends the wait.

        Raises:
            InterruptedCall: `is_over` said so; the reply may have arrived, or not.
        """
        seconds = int(self.poll_seconds) if waits else 0
        request = wire.PollRequest(
            session=self.id, reply=reply, wait_seconds=seconds, paused=paused
        )
        call = self._stub.Poll.future(request, timeout=seconds + CALL_SECONDS)
        return self._wait_for(call, is_over)

    def beat(self) -> None:
        """Say that this agent lives; a task that comes back is offered again by the next poll."""
        request = wire.PollRequest(session=self.id, wait_seconds=0)
        self._call(self._stub.Poll, request)

    def download(self, task: bytes, offset: int, *, seconds: float) -> Iterator[Piece]:
        """Yield the chunks of a task's content from an offset on."""
        request = wire.DownloadRequest(session=self.id, task=task, offset=offset)
        call = self._download(request, timeout=seconds)
        with _Streaming(self, call):
            try:
                for chunk in call:
                    self._moved = self.heard = time.monotonic()
                    yield chunk
            except grpc.RpcError as error:
                raise self._explain(error) from error

    def find_upload(self, header: wire.UploadHeader) -> wire.UploadReply:
        """Return how much of a reply the coordinator has."""
        return self._call(self._stub.FindUpload, header, seconds=UPLOAD_SECONDS)

    def upload(self, chunks: Iterator[Piece], *, seconds: float) -> wire.UploadReply:
        """Send the chunks of a reply."""
        call = self._upload.future(self._watch(chunks), timeout=seconds)
        with _Streaming(self, call):
            return self._wait_for(call, self._is_unwanted)

    def fetch_membership(self) -> bytes:
        """Return the federation's membership, as the coordinator has it."""
        request = wire.GetMembershipRequest(session=self.id)
        membership: bytes = self._call(self._stub.GetMembership, request).membership
        return membership

    def leave(self) -> None:
        """End the session in good order."""
        self._call(self._stub.Leave, wire.LeaveRequest(session=self.id), seconds=5.0)

    def close(self) -> None:
        """Close the channel; calls in progress end."""
        self._channel.close()

    def look(self) -> None:
        """Cut a stream short that stalls or is not wanted any more; for the other thread."""
        stream = self._stream
        if stream is None:
            return
        if self._is_unwanted() or time.monotonic() - self._moved > STALL_SECONDS:
            stream.cancel()

    def _watch(self, chunks: Iterator[Piece]) -> Iterator[Piece]:
        for chunk in chunks:
            self._moved = time.monotonic()
            yield chunk
        # What follows is the coordinator's check of the digest.
        self._moved = time.monotonic() + UPLOAD_SECONDS

    def _call(
        self, method: Callable[..., Answer], request: object, *, seconds: float = CALL_SECONDS
    ) -> Answer:
        try:
            answer = method(request, timeout=seconds)
        except grpc.RpcError as error:
            raise translate(error) from error
        self.heard = time.monotonic()
        return answer

    def _wait_for(self, call: "grpc.Future[Answer]", is_over: Callable[[], bool]) -> Answer:
        """Wait in short pieces: a signal's handler runs between two."""
        try:
            while True:
                try:
                    answer = call.result(timeout=_LOOK_SECONDS)
                except grpc.FutureTimeoutError:
                    if is_over():
                        call.cancel()
                        raise InterruptedCall from None
                    continue
                self.heard = time.monotonic()
                return answer
        except (grpc.FutureCancelledError, grpc.RpcError) as error:
            raise self._explain(error) from error

    def _explain(self, error: grpc.FutureCancelledError | grpc.RpcError) -> Exception:
        """Return what a call that failed is here: it may have been cut short from this end."""
        if self._is_unwanted():
            return InterruptedCall()
        if isinstance(error, grpc.RpcError) and error.code() is not grpc.StatusCode.CANCELLED:
            return translate(error)
        return UnavailableError(f"a transfer stood still for {STALL_SECONDS:g} s")


class _Streaming:
    """Marks a stream that `Session.look` watches."""

    def __init__(self, session: Session, call: Cancellable) -> None:
        self._session = session
        self._call = call

    def __enter__(self) -> None:
        self._session._moved = time.monotonic()
        self._session._stream = self._call

    def __exit__(self, *_: object) -> None:
        self._session._stream = None
        self._call.cancel()


class Pulse(threading.Thread):
    """The thread beside the work: a long training must not end the session."""

    def __init__(self) -> None:
        super().__init__(name="pulse", daemon=True)
        self._end = threading.Event()
        self._session: Session | None = None

    def beat_for(self, session: Session) -> None:
        """Beat for a session from now on."""
        self._session = session

    def rest(self) -> None:
        """Beat no more: the main thread polls, or there is no session."""
        self._session = None

    def stop(self) -> None:
        """End the thread."""
        self._end.set()
        if self.is_alive():
            self.join(CALL_SECONDS)

    def run(self) -> None:
        """Look a few times a second; beat before a poll's time is over."""
        while not self._end.wait(_LOOK_SECONDS):
            session = self._session
            if session is None:
                continue
            session.look()
            if time.monotonic() - session.heard >= session.poll_seconds / 2:
                self._beat(session)

    def _beat(self, session: Session) -> None:
        try:
            session.beat()
        except Exception as error:  # noqa: BLE001 - the main thread's next call finds out, too
            session.heard = time.monotonic()
            log.info("heartbeat_failed message=%s", error)

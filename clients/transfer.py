"""Contents on their way: down into a file, up from a file, from where a lost connection left them.

What is received lies in the agent's folder under its task's name until the reply is kept, so that a
restarted agent goes on with the bytes that it has.

Guarantees:
    * A content is used only when its size and digest are those that its task names.
    * Memory is a chunk or two, whatever the content's size; a received file is mapped, not read.
"""

import hashlib
import logging
import mmap
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from fedtrain.errors import SiteError
from fedtrain.link import link_pb2 as wire
from fedtrain.link.content import PartialFile, compute_content_digest, read_chunks
from fedtrain.link.contract import INLINE_BYTES
from fedtrain.link.faults import ContentError
from fedtrain.link.pieces import Piece

from .outbox import Stored
from .session import Session

log = logging.getLogger("fedtrain.clients")
Count = Callable[[int], None]
# How often a content is sent whose bytes did not arrive as they were.
_ATTEMPTS: Final = 2
# A reply that is late is refused by the coordinator; a deadline that lies behind is none of a call.
_LEAST_SECONDS: Final = 10.0


def receive(
    session: Session, task: wire.Task, folder: Path, *, until: float, largest: int, count: Count
) -> memoryview:
    """Return a task's content; it is downloaded where it is not in the task itself.

    Args:
        session: The session.
        task: What the coordinator asks.
        folder: Where downloads are kept; those of other tasks are removed.
        until: When the reply is of no use any more, monotonic seconds.
        largest: Most bytes that are taken.
        count: Called with the bytes of each chunk.

    Returns:
        The bytes, writable; of a download memory that its file backs, and that writes do not reach.

    Raises:
        ContentError: It is larger, or twice another than the task names.
        SiteError: The disk is full.
        UnavailableError: The connection was lost; what came is kept.
    """
    content = task.content
    name = f"{task.id.hex()}.{content.digest.hex()}"
    for path in folder.iterdir():
        if path.name != name:
            path.unlink(missing_ok=True)
    if content.inline or not content.size:
        return _take_inline(content, count)
    if content.size > largest:
        raise ContentError(f"the task has {content.size} bytes, at most {largest} are taken")
    try:
        _download(session, task, folder / name, until=until, count=count)
    except OSError as error:
        raise SiteError(
            f"{folder} cannot hold a task of {content.size} bytes ({error.strerror}); free space on"
            " the disk"
        ) from error
    with (folder / name).open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))


def send(session: Session, stored: Stored, *, until: float, count: Count) -> wire.Reply:
    """Upload a reply, from where the coordinator has it.

    Args:
        session: The session.
        stored: The reply.
        until: When it is of no use any more, monotonic seconds.
        count: Called with the bytes of each chunk.

    Returns:
        What names it in the next poll.

    Raises:
        ContentError: It arrived damaged twice.
        RefusedError: The coordinator does not want it any more.
        UnavailableError: The connection was lost; what arrived is kept there.
    """
    header = wire.UploadHeader(
        session=session.id, task=stored.task, size=stored.size, digest=stored.digest
    )
    with stored.path.open("rb") as file:
        for _ in range(_ATTEMPTS):
            try:
                answer = session.find_upload(header)
                if not answer.complete:
                    chunks = _make_chunks(header, file, answer.offset, count=count)
                    answer = session.upload(chunks, seconds=_count_seconds(until))
                if answer.complete:
                    content = wire.Content(size=stored.size, digest=stored.digest)
                    return wire.Reply(task=stored.task, content=content)
            except ContentError as error:
                log.warning("upload_is_damaged message=%s", error)
    raise ContentError(f"the reply of {stored.size} bytes arrived {_ATTEMPTS} times as another")


def make_reply(task: bytes, buffers: Sequence[memoryview]) -> wire.Reply:
    """Return a small reply, which travels within the poll."""
    size, digest = compute_content_digest(buffers)
    if size > INLINE_BYTES:
        raise ValueError(f"a reply of {size} bytes is uploaded, not sent within a poll")
    content = wire.Content(size=size, digest=digest, inline=b"".join(buffers))
    return wire.Reply(task=task, content=content)


def forget_downloads(folder: Path) -> None:
    """Remove what was received; memory that is mapped stays until it is let go."""
    for path in folder.iterdir():
        path.unlink(missing_ok=True)


def _take_inline(content: wire.Content, count: Count) -> memoryview:
    data = bytearray(content.inline)
    if len(data) != content.size or hashlib.sha256(data).digest() != content.digest:
        raise ContentError(f"the task has {len(data)} bytes that are not those it names")
    count(len(data))
    return memoryview(data)


def _download(session: Session, task: wire.Task, path: Path, *, until: float, count: Count) -> None:
    """Receive a content into a file.

    Raises:
        OSError: The disk is full.
    """
    content = task.content
    with PartialFile(path, size=content.size, digest=content.digest) as partial:
        for attempt in range(_ATTEMPTS):
            if partial.offset < content.size:
                seconds = _count_seconds(until)
                for chunk in session.download(task.id, partial.offset, seconds=seconds):
                    partial.append(chunk.offset, chunk.data)
                    count(len(chunk.data))
            try:
                partial.finish()
            except ContentError as error:
                log.warning("download_is_damaged message=%s", error)
                if attempt + 1 == _ATTEMPTS:
                    raise
            else:
                return


def _make_chunks(
    header: wire.UploadHeader, file: BinaryIO, offset: int, *, count: Count
) -> Iterator[Piece]:
    """Yield a content's chunks from an offset on, at least one; the first has the header."""
    first: wire.UploadHeader | None = header
    for at, data in read_chunks(file, offset):
        yield Piece(at, data, first)
        first = None
        count(len(data))
    if first is not None:
        yield Piece(offset, b"", first)


def _count_seconds(until: float) -> float:
    return max(until - time.monotonic(), _LEAST_SECONDS)

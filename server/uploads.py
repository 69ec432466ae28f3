"""Replies that come in chunks: written to a file in the spool, wherever the connection is cut.

The file is named after the task and the digest of its content. So two calls that both write it (the
older one hangs in a connection that is gone) write the same bytes to the same places.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from fedtrain.link import link_pb2
from fedtrain.link.contract import CHUNK_BYTES
from fedtrain.link.faults import ContentError, UnavailableError
from fedtrain.link.parcel import Buffer

from .outstanding import Outstanding
from .spool import Spool, is_intact
from .store import Content, Task

_DIGEST_BYTES: Final = 32


class Uploads:
    """The uploads of all sites.

    Args:
        spool: Where files are.
        outstanding: Takes a reply that is complete.
        largest: Most bytes of one.
    """

    def __init__(self, spool: Spool, outstanding: Outstanding, *, largest: int) -> None:
        self._spool = spool
        self._outstanding = outstanding
        self._largest = largest

    @contextmanager
    def begin(self, task: Task, size: int, digest: bytes) -> Iterator["Upload"]:
        """Open an upload where it was left, by a call or a coordinator that is gone.

        Raises:
            ContentError: It is too large, or its digest is none.
            UnavailableError: The disk refused.
        """
        if not 0 < size <= self._largest or len(digest) != _DIGEST_BYTES:
            raise ContentError(
                f"a reply of {size} bytes with a digest of {len(digest)}: 1 to {self._largest} and"
                f" {_DIGEST_BYTES} are taken"
            )
        self._spool.remove_other_replies(task.id, digest)
        path = self._spool.get_reply(task.id, digest)
        with _reporting():
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            yield Upload(self._spool, self._outstanding, task, Content(size, digest), descriptor)
        finally:
            os.close(descriptor)


class Upload:
    """One reply's file, open at its end.

    Attributes:
        offset: How many bytes of it are there.
    """

    def __init__(
        self, spool: Spool, outstanding: Outstanding, task: Task, content: Content, descriptor: int
    ) -> None:
        self._spool = spool
        self._outstanding = outstanding
        self._task = task
        self._content = content
        self._descriptor = descriptor
        self.offset = min(os.fstat(descriptor).st_size, content.size)
        # Of what this call writes: enough where it writes all.
        self._hasher = hashlib.sha256() if self.offset == 0 else None

    def append(self, offset: int, data: Buffer) -> None:
        """Write a chunk.

        Raises:
            ContentError: It does not go on where the last one ended, is too long, or behind the
                content's end.
            UnavailableError: The disk is full.
        """
        if offset != self.offset or len(data) > CHUNK_BYTES:
            raise ContentError(
                f"a chunk of {len(data)} bytes at {offset}: the next is due at {self.offset}, with"
                f" {CHUNK_BYTES} at most"
            )
        if offset + len(data) > self._content.size:
            raise ContentError(f"a chunk goes behind the content's end, {self._content.size}")
        left = memoryview(data)
        with _reporting():
            while left:
                written = os.pwrite(self._descriptor, left, self.offset)
                self.offset, left = self.offset + written, left[written:]
        if self._hasher is not None:
            self._hasher.update(data)

    def finish(self) -> link_pb2.UploadReply:
        """Take the reply if all of it is there; say how much is.

        Raises:
            ContentError: Its digest does not hold; it is to be sent from its start.
            CoordinatorError: It cannot be taken now; it is kept.
        """
        if self.offset < self._content.size:
            return link_pb2.UploadReply(offset=self.offset, complete=False)
        path = self._spool.get_reply(self._task.id, self._content.digest)
        holds = (
            self._hasher.digest() == self._content.digest
            if self._hasher is not None
            else is_intact(path, self._content.digest)
        )
        if not holds:
            path.unlink(missing_ok=True)
            raise ContentError("the reply is not what its digest says; send it from its start")
        self._outstanding.answer(self._task, self._content)
        return link_pb2.UploadReply(offset=self.offset, complete=True)


@contextmanager
def _reporting() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UnavailableError(
            f"the coordinator cannot write ({error.strerror}); try again later"
        ) from error

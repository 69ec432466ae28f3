"""Contents in chunks: out of buffers or a file from any offset, into a file that a restart finds.

Guarantees:
    * Whatever the size of a content, no more than a chunk of it is in memory here.
    * A content is complete only when its size and its SHA-256 are those that were declared.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from fedtrain.link.contract import CHUNK_BYTES
from fedtrain.link.faults import ContentError
from fedtrain.link.parcel import Buffer

DIGEST_BYTES: Final = 32


def compute_content_digest(buffers: Iterable[Buffer]) -> tuple[int, bytes]:
    """Return size and SHA-256 of buffers that follow each other."""
    hasher, size = hashlib.sha256(), 0
    for buffer in buffers:
        view = memoryview(buffer).cast("B")
        hasher.update(view)
        size += len(view)
    return size, hasher.digest()


def make_chunks(buffers: Iterable[Buffer], offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield offset and bytes of each chunk of buffers that follow each other.

    Args:
        buffers: The content.
        offset: Where to begin.

    Raises:
        ContentError: The content ends before it.
    """
    piece, at, skip = bytearray(), offset, offset
    for buffer in buffers:
        view = memoryview(buffer).cast("B")
        left = view[min(skip, len(view)) :]
        skip -= len(view) - len(left)
        while left:
            if not piece and len(left) >= CHUNK_BYTES:
                yield at, bytes(left[:CHUNK_BYTES])
                at, left = at + CHUNK_BYTES, left[CHUNK_BYTES:]
                continue
            room = CHUNK_BYTES - len(piece)
            piece += left[:room]
            left = left[room:]
            if len(piece) == CHUNK_BYTES:
                yield at, bytes(piece)
                at += len(piece)
                piece.clear()
    if skip:
        raise ContentError(f"offset {offset} is {skip} bytes behind the end of the content")
    if piece:
        yield at, bytes(piece)


def read_chunks(file: BinaryIO, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield offset and bytes of each chunk of an open file, to its end.

    Args:
        file: Open for reading; its position is neither used nor moved.
        offset: Where to begin.

    Raises:
        ContentError: The file ends before it.
    """
    descriptor = file.fileno()
    size = os.fstat(descriptor).st_size
    if not 0 <= offset <= size:
        raise ContentError(f"offset {offset} is not within the content's {size} bytes")
    while data := os.pread(descriptor, CHUNK_BYTES, offset):
        yield offset, data
        offset += len(data)


class PartialFile:
    """A content as it comes in; a file that stays where it is when the process or the link dies.

    One process appends at a time. The digest is computed while the bytes come, and once more from
    the file for the bytes of an earlier process.
    """

    def __init__(self, path: Path, *, size: int, digest: bytes) -> None:
        """Open a file, or make it, readable by its owner alone.

        Args:
            path: Where the content goes.
            size: Bytes, as declared; the caller has compared them with its limit.
            digest: SHA-256, as declared.

        Raises:
            ContentError: No content has such a size or digest.
            OSError: The file cannot be opened.
        """
        if size < 0 or len(digest) != DIGEST_BYTES:
            raise ContentError(
                f"{size} bytes with a digest of {len(digest)}; a digest has {DIGEST_BYTES}"
            )
        self._path, self._size, self._digest = path, size, digest
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        self._hasher = hashlib.sha256()
        self._hashed = 0
        self.offset = os.fstat(self._descriptor).st_size
        """How many bytes are there, and where the next are due."""
        if self.offset > size:
            os.ftruncate(self._descriptor, 0)
            self.offset = 0

    def append(self, offset: int, data: Buffer) -> None:
        """Write a chunk.

        Args:
            offset: Where it lies in the content.
            data: At most CHUNK_BYTES.

        Raises:
            ContentError: It does not begin where the bytes before it end, is longer than a chunk or
                than what is left, or is empty.
            OSError: The disk is full; what fits of the chunk is kept.
        """
        left = self._size - self.offset
        if offset != self.offset or not 0 < len(data) <= min(CHUNK_BYTES, left):
            raise ContentError(
                f"{len(data)} bytes at {offset}: the next are due at {self.offset}, 1 to"
                f" {min(CHUNK_BYTES, left)} of them"
            )
        view = memoryview(data)
        is_hashed = self._hashed == self.offset
        while view:
            count = os.pwrite(self._descriptor, view, self.offset)
            if is_hashed:
                self._hasher.update(view[:count])
                self._hashed += count
            self.offset, view = self.offset + count, view[count:]

    def finish(self) -> None:
        """Check that all of it is there.

        It is not made durable: what a power cut takes is found out by its digest, and comes again.

        Raises:
            ContentError: Bytes are missing, or the digest does not hold; then the file is emptied,
                and the content begins again.
            OSError: The disk failed.
        """
        if self.offset != self._size:
            raise ContentError(f"{self.offset} bytes of {self._size} are there; go on from there")
        self._hash_rest()
        if self._hasher.digest() != self._digest:
            os.ftruncate(self._descriptor, 0)
            self.offset = self._hashed = 0
            self._hasher = hashlib.sha256()
            raise ContentError("the content is not what its digest says; it must be sent again")

    def close(self) -> None:
        """Close the file; what is there stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _hash_rest(self) -> None:
        while self._hashed < self._size:
            data = os.pread(self._descriptor, CHUNK_BYTES, self._hashed)
            if not data:
                raise ContentError("the file became shorter while it was received")
            self._hasher.update(data)
            self._hashed += len(data)

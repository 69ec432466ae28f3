"""Replies on the site's disk: written before they are sent, and sent again, not computed again.

One file a task, named after the task and the digest of what it holds, so that a reply that was
damaged is found out before it is sent.

Guarantees:
    * What `put` returns survives a power cut; a kill in the middle of it leaves no reply, or all.
    * One task has one reply: whatever is put later, the first one is returned.
    * A reply that does not match its digest is never returned.
    * Never more than `most` replies are kept, nor more than `most_bytes` where there are several.
"""

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from fedtrain.durable import open_private, sync_folder
from fedtrain.errors import SiteError

log = logging.getLogger("fedtrain.clients")
MOST: Final = 16
_SUFFIX: Final = ".reply"
_PIECE: Final = 2**20


@dataclass(frozen=True)
class Stored:
    """A reply on disk.

    Attributes:
        task: Identifier of the task.
        path: The file.
        size: Bytes.
        digest: SHA-256.
    """

    task: bytes
    path: Path
    size: int
    digest: bytes


class Outbox:
    """The replies of one site."""

    def __init__(self, folder: Path, *, most: int = MOST, most_bytes: int = 8 * 2**30) -> None:
        """Open the outbox; what a killed process left half written is removed."""
        self._folder = folder
        self._most = most
        self._most_bytes = most_bytes
        for partial in folder.glob("*.partial"):
            partial.unlink()

    def find(self, task: bytes) -> Stored | None:
        """Return the reply to a task, checked; None where there is none."""
        for path in self._folder.glob(f"{task.hex()}.*{_SUFFIX}"):
            digest = bytes.fromhex(path.name.split(".")[1])
            if _compute_digest(path) == digest:
                return Stored(task, path, path.stat().st_size, digest)
            log.error("reply_is_damaged task=%s", task.hex()[:16])
            path.unlink()
        return None

    def put(self, task: bytes, buffers: Sequence[memoryview]) -> Stored:
        """Write the reply to a task; return when it is durable.

        Args:
            task: Identifier of the task.
            buffers: The reply, in pieces.

        Returns:
            The reply; the one that was there before, where there was one.

        Raises:
            SiteError: The disk is full or cannot be written; nothing may be sent.
        """
        earlier = self.find(task)
        if earlier is not None:
            return earlier
        size = sum(buffer.nbytes for buffer in buffers)
        self._make_room(size)
        partial = self._folder / f"{task.hex()}.partial"
        try:
            with open_private(partial, os.O_TRUNC) as file:
                digest = _write(file, buffers)
                path = self._folder / f"{task.hex()}.{digest.hex()}{_SUFFIX}"
                # The name before the bytes: both are durable at once, in one commit of the file
                # system's journal. A power cut between the two leaves what its digest gives away.
                partial.replace(path)
                os.fsync(file.fileno())
            sync_folder(self._folder)
        except OSError as error:
            self.remove(task)
            raise SiteError(
                f"{self._folder} cannot hold a reply of {size} bytes ({error.strerror}); it is not"
                " sent before it is kept: free space on the disk"
            ) from error
        return Stored(task, path, size, digest)

    def remove(self, task: bytes) -> None:
        """Forget the reply to a task: the coordinator has it, or wants it no more."""
        for path in self._folder.glob(f"{task.hex()}.*"):
            path.unlink(missing_ok=True)

    def count(self) -> int:
        """Return how many replies are kept."""
        return len(self._list())

    def _make_room(self, size: int) -> None:
        """Remove the oldest replies until one more of a size fits into the bounds."""
        kept = self._list()
        total = sum(entry.st_size for _, entry in kept)
        while kept and (len(kept) >= self._most or total + size > self._most_bytes):
            path, entry = kept.pop(0)
            log.warning("reply_dropped task=%s", path.name[:16])
            path.unlink(missing_ok=True)
            total -= entry.st_size

    def _list(self) -> list[tuple[Path, os.stat_result]]:
        """Return the replies, the oldest first."""
        found = [(path, path.stat()) for path in self._folder.glob(f"*{_SUFFIX}")]
        return sorted(found, key=lambda item: (item[1].st_mtime_ns, item[0].name))


def _write(file: IO[bytes], buffers: Sequence[memoryview]) -> bytes:
    """Write buffers to a file and return their digest; nothing of it is durable yet."""
    digest = hashlib.sha256()
    for buffer in buffers:
        for at in range(0, buffer.nbytes, _PIECE):  # hashed while it is in the cache
            piece = buffer[at : at + _PIECE]
            digest.update(piece)
            file.write(piece)
    file.flush()
    return digest.digest()


def _compute_digest(path: Path) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.digest()

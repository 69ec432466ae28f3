"""Contents that are too large for the database: one file each, gone with their round.

    spool/contents/DIGEST        what is sent to sites: one file, whoever gets it
    spool/replies/TASK-DIGEST    what a site sends back, as much of it as is there

A reply's file counts only once the database says so; until then it is an upload that may go on.
"""

import hashlib
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

from fedtrain.durable import open_private

from .faults import CoordinatorError

FOLDER: Final = "spool"
_PIECE: Final = 2**20


class Spool:
    """The folder of large contents."""

    def __init__(self, path: Path) -> None:
        """Take a folder, making it where it is missing."""
        self._contents, self._replies = path / "contents", path / "replies"
        for folder in (path, self._contents, self._replies):
            folder.mkdir(mode=0o700, exist_ok=True)

    def save_content(self, digest: bytes, buffers: Iterable[memoryview]) -> None:
        """Write a content, once for all who get it.

        Raises:
            CoordinatorError: The disk is full.
        """
        path = self.get_content(digest)
        if path.exists():
            return
        partial = path.with_name(f"{path.name}.partial")
        try:
            with open_private(partial, os.O_TRUNC) as file:
                for buffer in buffers:
                    file.write(buffer)
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise CoordinatorError(
                f"{path.parent}: cannot write ({error.strerror}); make room there and resume the"
                " run"
            ) from error

    def get_content(self, digest: bytes) -> Path:
        """Return where the content of a digest is."""
        return self._contents / digest.hex()

    def get_reply(self, task: bytes, digest: bytes) -> Path:
        """Return where a reply's content is, as far as it has come."""
        return self._replies / f"{task.hex()}-{digest.hex()}"

    def remove_other_replies(self, task: bytes, digest: bytes) -> None:
        """Remove what was begun to be uploaded for a task with another digest."""
        kept = self.get_reply(task, digest)
        for path in self._replies.glob(f"{task.hex()}-*"):
            if path != kept:
                path.unlink(missing_ok=True)

    def sweep(self, *, contents: Collection[bytes], tasks: Collection[bytes]) -> None:
        """Remove what neither a content nor a task that is still known needs."""
        kept = {digest.hex() for digest in contents}
        for path in self._contents.iterdir():
            if path.name not in kept:
                path.unlink(missing_ok=True)
        kept = {task.hex() for task in tasks}
        for path in self._replies.iterdir():
            if path.name.partition("-")[0] not in kept:
                path.unlink(missing_ok=True)


def is_intact(path: Path, digest: bytes) -> bool:
    """Say whether a file is there and has a digest; memory is one piece."""
    hasher, piece = hashlib.sha256(), bytearray(_PIECE)
    try:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(piece):
                hasher.update(memoryview(piece)[:count])
    except OSError:
        return False
    return hasher.digest() == digest

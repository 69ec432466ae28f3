"""Where a site keeps what it must not forget: one record a run, written before an answer leaves.

A record that is lost or old lets the coordinator ask twice: a store is never restored from a
backup, copied to a second machine, or begun anew in the middle of a run.
"""

import fcntl
import hmac
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Final, Protocol, Self

from fedtrain.durable import SUFFIX, open_private, replace_file, sync_folder
from fedtrain.errors import SiteError
from fedtrain.secagg.keys import compute_digest

MASKED: Final = 3
SIGNED: Final = 4
UNMASKED: Final = 5
_MARKER: Final = "fedtrain-secagg-state-v1"
_SAVING: Final = "saving.lock"
_DIGEST_BYTES: Final = 32


class StateStore(Protocol):
    """Durable bytes by key. `save` returns only when they would survive a power cut."""

    def load(self, key: str) -> bytes | None:
        """Return what was saved last under a key, or None."""
        ...

    def save(self, key: str, data: bytes) -> None:
        """Replace what is stored under a key, all or nothing."""
        ...

    def lock(self, key: str) -> AbstractContextManager[None]:
        """Keep a key from all others while one checks and saves it; it need not be reentrant."""
        ...


class MemoryStore:
    """A store that lasts as long as the process: for simulations and tests."""

    def __init__(self) -> None:
        self._items: dict[str, bytes] = {}
        self._lock = threading.RLock()

    def load(self, key: str) -> bytes | None:
        """Return what was saved last under a key, or None."""
        return self._items.get(key)

    def save(self, key: str, data: bytes) -> None:
        """Replace what is stored under a key."""
        self._items[key] = data

    def lock(self, key: str) -> AbstractContextManager[None]:  # noqa: ARG002 - one lock for all
        """Keep all keys from other threads."""
        return self._hold()

    @contextmanager
    def _hold(self) -> Iterator[None]:
        with self._lock:
            yield


class FileStore:
    """A store in a folder of the site's own disk, for any number of processes of that one site.

    A record is one file, named after the hash of its key; it begins with a digest of key and
    data. It holds other sites' secrets in the clear: what is overwritten may stay on the disk's
    blocks, so that the disk is to be encrypted.

    Guarantees:
        * After `save` the data survives a power cut; a process that is killed in the middle of it
          leaves the old data or the new, never a part (write aside, fsync, rename, fsync folder).
        * `load` returns what was saved last, or None where nothing ever was; a file or a folder
          that is gone in part, damaged, unreadable or another key's is an error, never None.
        * Files are readable by their owner alone, and so is the folder, or it is not opened.
    """

    def __init__(self, folder: Path) -> None:
        """Open a store that `create` made.

        Raises:
            SiteError: There is none, or others can read it.
        """
        self._folder = folder
        self._check_folder()
        with self._hold(_SAVING):
            for partial in folder.glob(f"*{SUFFIX}"):  # of a process that was killed
                partial.unlink()

    @classmethod
    def create(cls, folder: Path) -> Self:
        """Make the folder of a new store, once in a site's life.

        Raises:
            SiteError: It exists, or cannot be made.
        """
        try:
            folder.mkdir(mode=0o700)
            (folder / _MARKER).touch(mode=0o600)
            sync_folder(folder)
            sync_folder(folder.parent)
        except OSError as error:
            raise SiteError(
                f"{folder} cannot be made ({error.strerror}); name a new folder in one that exists"
            ) from error
        return cls(folder)

    def load(self, key: str) -> bytes | None:
        """Return what was saved last under a key, or None.

        Raises:
            SiteError: The record is unreadable or damaged, or the store itself is gone.
        """
        path = self._name(key, "state")
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            self._check_folder()
            return None
        except OSError as error:
            raise SiteError(
                f"{path} cannot be read ({error.strerror}); without it this site may answer no"
                " round: repair the disk"
            ) from error
        digest, data = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if not hmac.compare_digest(digest, compute_digest("state", key, data)):
            raise SiteError(
                f"{path} is damaged or another record's; without it this site may answer no round:"
                " end the run"
            )
        return data

    def save(self, key: str, data: bytes) -> None:
        """Replace what is stored under a key, all or nothing.

        Raises:
            SiteError: The disk is full or cannot be written; what rests on it may not be sent.
        """
        path = self._name(key, "state")
        with self._hold(_SAVING):
            try:
                replace_file(path, compute_digest("state", key, data) + data, mode=0o600)
            except OSError as error:
                raise SiteError(
                    f"{path} cannot be written ({error.strerror}); nothing is sent without it:"
                    " free space on the disk"
                ) from error

    def lock(self, key: str) -> AbstractContextManager[None]:
        """Keep a key from other processes and threads; not reentrant."""
        return self._hold(self._name(key, "lock").name)

    @contextmanager
    def _hold(self, name: str) -> Iterator[None]:
        """Hold the lock of a file; it ends with the process, however that ends."""
        with self._open_lock(name):
            yield

    def _open_lock(self, name: str) -> IO[bytes]:
        try:
            file = open_private(self._folder / name, os.O_APPEND)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise SiteError(
                f"{self._folder} cannot be locked ({error.strerror}); it must be a folder of this"
                " machine that this user may write"
            ) from error
        return file

    def _name(self, key: str, suffix: str) -> Path:
        """Return the file of a key, whatever characters it has."""
        return self._folder / f"{compute_digest('state-key', key).hex()}.{suffix}"

    def _check_folder(self) -> None:
        try:
            (self._folder / _MARKER).stat()
            mode = stat.S_IMODE(self._folder.stat().st_mode)
        except OSError as error:
            raise SiteError(
                f"{self._folder} holds no state of secure aggregation ({error.strerror}); name the"
                " folder that this site used before: a new one forgets which rounds it answered"
            ) from error
        if mode & 0o077:
            raise SiteError(
                f"{self._folder} has mode {mode:04o}, so that others can read secrets; chmod 700 it"
            )

"""The files of a member's and of the root's folder, each written whole or not at all.

    any member   request.bin identity.key tls.key tls.crt ca.crt root.pub membership.bin
    a renewal    tls.key.next, until its certificate is installed
    a site       roster.bin, and rosters/DIGEST.bin for every roster that it ever pinned
    the root     root.key root.pub ca.key ca.crt membership.bin federation.toml approvals.jsonl

Folders have mode 0700 and files 0600. Keys are never overwritten.
"""

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fedtrain.durable import SUFFIX, open_private, replace_file, sync_folder, write_synced
from fedtrain.errors import SiteError

IDENTITY_FILE: Final = "identity.key"
REQUEST_FILE: Final = "request.bin"
TLS_KEY_FILE: Final = "tls.key"
NEXT_TLS_KEY_FILE: Final = "tls.key.next"
TLS_CERTIFICATE_FILE: Final = "tls.crt"
CA_FILE: Final = "ca.crt"
ROOT_FILE: Final = "root.pub"
MEMBERSHIP_FILE: Final = "membership.bin"
ROSTER_FILE: Final = "roster.bin"
ROSTERS_FOLDER: Final = "rosters"
ROOT_KEY_FILE: Final = "root.key"
CA_KEY_FILE: Final = "ca.key"
FEDERATION_FILE: Final = "federation.toml"
APPROVALS_FILE: Final = "approvals.jsonl"
KITS_FOLDER: Final = "kits"
LOCK_FILE: Final = "membership.lock"
Hook = Callable[[str], None]


def write_file(path: Path, content: bytes) -> None:
    """Write or replace a file, readable by its owner alone.

    Raises:
        SiteError: The disk is full, or the folder cannot be written.

    Guarantees:
        * After a return the content survives a power cut; a process that is killed in the middle
          leaves the old content or the new, never a part.
    """
    with _reporting(path):
        replace_file(path, content, mode=0o600)


def write_new_file(path: Path, content: bytes) -> None:
    """Write a file that does not exist yet, e.g. a key.

    Raises:
        SiteError: It exists, or cannot be written.

    Guarantees:
        * An existing file is never touched; a new one is there whole or not at all.
        * The file is never readable by others, not for a moment.
    """
    partial = path.with_name(f"{path.name}{SUFFIX}")
    with _reporting(path):
        try:
            write_synced(partial, content, mode=0o600)
            os.link(partial, path)
            sync_folder(path.parent)
        except FileExistsError as error:
            raise SiteError(f"{path} exists and is kept; name another file") from error
        finally:
            partial.unlink(missing_ok=True)


def write_public_key(path: Path, public_key: bytes) -> None:
    """Write an Ed25519 public key in PEM, as `fedtrain.secagg.files.load_root_key` reads it.

    Raises:
        SiteError: The disk is full, or the folder cannot be written.
    """
    key = Ed25519PublicKey.from_public_bytes(public_key)
    write_file(path, key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def append_line(path: Path, line: str) -> None:
    """Append a line to a file; return when it is durable.

    A last line without its end, which a killed process left, is removed first.

    Raises:
        SiteError: The disk is full, or the folder cannot be written.
    """
    with _reporting(path), open_private(path, os.O_APPEND) as file:
        start = path.read_bytes().rfind(b"\n") + 1
        try:
            os.ftruncate(file.fileno(), start)
            _write_all(file.fileno(), f"{line}\n".encode())
            os.fsync(file.fileno())
        except OSError:
            os.ftruncate(file.fileno(), start)
            raise


def make_folder(path: Path) -> None:
    """Make a private folder where it is missing.

    Raises:
        SiteError: It cannot be made, or it exists and others can enter it.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise SiteError(
            f"{path} cannot be made ({error.strerror}); name a folder that this user may make"
        ) from error
    if mode & 0o077:
        raise SiteError(f"{path} has mode {mode:04o}, so that others can enter it; chmod 700 it")


@contextmanager
def locking(folder: Path) -> Iterator[None]:
    """Keep other processes from changing a folder's membership meanwhile; not reentrant.

    Raises:
        SiteError: There is no such folder, or it cannot be written.
    """
    try:
        file = open_private(folder / LOCK_FILE, os.O_APPEND)
    except OSError as error:
        raise SiteError(
            f"{folder} cannot be locked ({error.strerror}); name the folder that has the keys"
        ) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


@contextmanager
def _reporting(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SiteError(
            f"{path} cannot be written ({error.strerror}); free space or allow writing there, and"
            " do the same again"
        ) from error

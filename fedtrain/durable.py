"""Files that are written whole or not at all, and are still there after a power cut."""

import os
import stat
from pathlib import Path
from typing import IO, Final

from fedtrain.errors import SiteError

SUFFIX: Final = ".partial"
"""How the name of a file that is being written ends; a process that is killed may leave one."""
_MOST_BYTES: Final = 2**22  # a roster of MAX_SITES fits, and so does a membership of MAX_MEMBERS


def replace_file(path: Path, content: bytes | str, *, mode: int = 0o666, sync: bool = True) -> None:
    """Write or replace a file.

    Args:
        path: The file, in a folder that exists.
        content: All of it; text is written as UTF-8.
        mode: Of a new file, less what the umask takes off; 0o600 for its owner alone.
        sync: Whether to return only when it would survive a power cut.

    Raises:
        OSError: The disk is full, or the folder cannot be written.

    Guarantees:
        A process that is killed in the middle leaves the old content or the new, never a part.
    """
    partial = path.with_name(f"{path.name}{SUFFIX}")
    try:
        write_synced(partial, content, mode=mode, sync=sync)
        partial.replace(path)
        if sync:
            sync_folder(path.parent)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def write_synced(path: Path, content: bytes | str, *, mode: int = 0o666, sync: bool = True) -> None:
    """Write a file that nobody reads yet; see `replace_file`, which puts it in place."""
    with open_to_write(path, os.O_TRUNC, mode=mode) as file:
        file.write(content.encode() if isinstance(content, str) else content)
        if sync:
            file.flush()
            os.fsync(file.fileno())


def open_private(path: Path, flags: int) -> IO[bytes]:
    """Open a file to write, made readable by its owner alone; `flags` are more of `os.open`'s."""
    return open_to_write(path, flags, mode=0o600)


def open_to_write(path: Path, flags: int, *, mode: int) -> IO[bytes]:
    """Open a file to write, made where it is missing, never behind a link."""
    flags |= os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW
    return os.fdopen(os.open(path, flags, mode), "wb")


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: a name is in the folder, not in the file."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_small_file(path: Path, *, forbidden: int = 0) -> bytes:
    """Read a small file, e.g. a key.

    Args:
        path: The file.
        forbidden: Mode bits that it may not have.

    Raises:
        SiteError: It is missing, too large, or its mode lets others in.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise SiteError(f"{path} cannot be read ({error.strerror}); check its name") from error
    if mode & forbidden:
        raise SiteError(
            f"{path} has mode {mode:04o}, which lets others in; chmod {mode & ~forbidden:04o} it,"
            " and replace it if they used that"
        )
    if len(content) > _MOST_BYTES:
        raise SiteError(f"{path} has more than {_MOST_BYTES} bytes; name another file")
    return content

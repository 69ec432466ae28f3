"""A coordinator's folder: its files, and the lock of the process that serves from it.

COORDINATOR/
server.toml      where it listens, how long it waits
identity.key tls.key tls.crt ca.crt root.pub membership.bin request.bin
link.db          tasks, replies, sessions, runs
spool/           contents that are too large for it
runs/RUN/        run directories
audit.jsonl      who did what
log.txt lock
admin/           an operator's folder, for the administrator
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from .faults import CoordinatorError

LOG_FILE: Final = "log.txt"
LOCK_FILE: Final = "lock"
ADMIN_FOLDER: Final = "admin"


class RunsAlreadyError(CoordinatorError):
    """A coordinator runs in the folder."""


@contextmanager
def hold_lock(folder: Path) -> Iterator[None]:
    """Be the only coordinator of a folder; it ends with the process, however that ends.

    Raises:
        RunsAlreadyError: Another one runs in it.
        CoordinatorError: There is no such folder.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(folder / LOCK_FILE, flags, 0o600)
    except OSError as error:
        raise CoordinatorError(
            f"{folder} cannot be used ({error.strerror}); name a coordinator's folder"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise RunsAlreadyError(
            f"{folder} is in use by a coordinator that runs already; stop it first"
        ) from error
    finally:
        os.close(descriptor)

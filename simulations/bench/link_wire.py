"""What went over the wire: the kernel's own counters of this process's connections."""

import os
import socket
import stat
from pathlib import Path
from typing import Final

_FOLDER: Final = Path("/proc/self/fd")
# Offsets in Linux's struct tcp_info: bytes received in order, bytes sent with repetitions.
_RECEIVED: Final = slice(128, 136)
_SENT: Final = slice(200, 208)


def count_wire_bytes(port: int) -> int | None:
    """Return the bytes that this process's connections at a port have carried, both ways.

    What TCP carries: TLS's records included, headers of TCP and IP not. None where the system does
    not count them.
    """
    total = 0
    for one in _list_sockets():
        with socket.socket(fileno=os.dup(one)) as copy:
            if not _is_connection(copy, port):
                continue
            found = copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SENT.stop)
        if len(found) < _SENT.stop:
            return None
        total += sum(int.from_bytes(found[part], "little") for part in (_RECEIVED, _SENT))
    return total if _FOLDER.is_dir() else None


def _is_connection(one: socket.socket, port: int) -> bool:
    if one.family not in (socket.AF_INET, socket.AF_INET6) or one.type != socket.SOCK_STREAM:
        return False
    try:
        one.getpeername()
    except OSError:  # it listens
        return False
    return bool(one.getsockname()[1] == port)


def _list_sockets() -> list[int]:
    entries = list(_FOLDER.iterdir()) if _FOLDER.is_dir() else []
    return [int(entry.name) for entry in entries if _is_socket(int(entry.name))]


def _is_socket(descriptor: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:  # of the listing itself, closed since
        return False

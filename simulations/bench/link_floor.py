"""The floor: the same bytes over TCP and TLS 1.3 with Python's ssl, and nothing else.

A server sends n bytes to each of its clients, which send as many back once they have all of them;
pieces of 1 MiB, certificates at both ends, a process for each client and a thread for each
connection at the server. Nothing is kept, hashed or looked into.
"""

import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from .link_round import serve_rounds

PIECE: Final = 2**20
_HEAD: Final = 8
_SECONDS: Final = 60.0


def serve(folder: str, *clients: str) -> None:
    """Run the server, and a process for each client.

    Args:
        folder: With `tls.key`, `tls.crt` and `ca.crt`.
        clients: Such a folder each.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with _running(port, clients) as processes:
            context = _make_context(ssl.PROTOCOL_TLS_SERVER, Path(folder))
            listener.settimeout(_SECONDS)
            found = [_accept(listener, context) for _ in clients]
            _serve(found, port=port, pids=[process.pid for process in processes])
            for one in found:
                one.close()


def _serve(found: Sequence[ssl.SSLSocket], *, port: int, pids: Sequence[int]) -> None:
    models: dict[int, bytes] = {}
    with ThreadPoolExecutor(len(found)) as pool:

        def exchange(size: int) -> None:
            model = models.setdefault(size, os.urandom(size))
            for taken in pool.map(lambda one: _exchange(one, model), found):
                if taken != size:
                    raise RuntimeError(f"a client sent {taken} bytes back, not {size}")

        serve_rounds(exchange, port=port, pids=pids)


def _exchange(connection: ssl.SSLSocket, model: bytes) -> int:
    connection.sendall(len(model).to_bytes(_HEAD, "little"))
    _send(connection, memoryview(model))
    piece, taken = memoryview(bytearray(PIECE)), 0
    while taken < len(model):
        count = connection.recv_into(piece[: min(PIECE, len(model) - taken)])
        if not count:
            break
        taken += count
    return taken


def answer(port: str, folder: str) -> None:
    """Be a client: send back what comes, until the server ends the connection."""
    context = _make_context(ssl.PROTOCOL_TLS_CLIENT, Path(folder))
    context.check_hostname = False
    with socket.create_connection(("127.0.0.1", int(port))) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with context.wrap_socket(raw) as connection:
            while head := connection.recv(_HEAD):
                model = memoryview(bytearray(int.from_bytes(head, "little")))
                left = model
                while left:
                    left = left[connection.recv_into(left[:PIECE]) :]
                _send(connection, model)


def _send(connection: ssl.SSLSocket, data: memoryview) -> None:
    for at in range(0, len(data), PIECE):
        connection.sendall(data[at : at + PIECE])


def _accept(listener: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
    raw, _ = listener.accept()
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(raw, server_side=True)


def _make_context(protocol: int, folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    context.load_verify_locations(cadata=ssl.PEM_cert_to_DER_cert((folder / "ca.crt").read_text()))
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@contextmanager
def _running(port: int, folders: Sequence[str]) -> Iterator[list["subprocess.Popen[bytes]"]]:
    command = [sys.executable, "-m", __spec__.name, "answer", str(port)]
    processes = [
        subprocess.Popen([*command, folder], stdin=subprocess.DEVNULL) for folder in folders
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(*sys.argv[2:])
    else:
        answer(*sys.argv[2:])

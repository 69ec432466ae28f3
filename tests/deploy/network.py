"""Two network namespaces and a wire between them; and a proxy that cuts connections."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

COORDINATOR_IP, SITES_IP = "10.77.0.1", "10.77.0.2"


class Wire:
    """A program that carries packets between two namespaces."""

    def __init__(self, names):
        script = Path(__file__).with_name("wire.py")
        ends = (names[0], COORDINATOR_IP, names[1], SITES_IP)
        self._program = subprocess.Popen(
            [sys.executable, str(script), *ends],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.names = names
        assert self._program.stdout.readline() == "ready\n"

    def order(self, line):
        self._program.stdin.write(f"{line}\n")
        self._program.stdin.flush()
        assert self._program.stdout.readline() == "done\n"

    def close(self):
        self._program.stdin.close()
        self._program.wait(10)
        self._program.stdout.close()


def enter(namespace):
    """Return what a command in a namespace begins with."""
    return ("ip", "netns", "exec", namespace)


def skip_without_namespaces():
    """Skip a test where this machine lets nobody make a network."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if shutil.which("ip") is None:
        pytest.skip("'ip' is not installed (iproute2)")
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        pytest.skip("there is no /dev/net/tun")
    made = subprocess.run(["unshare", "-n", "ip", "link"], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"no network namespace can be made: {made.stderr.decode().strip()}")


@contextmanager
def stretch_wire():
    """Make two namespaces and a wire between them."""
    skip_without_namespaces()
    names = [f"fedtrain-{os.getpid()}-{end}" for end in ("coordinator", "sites")]
    try:
        for name in names:
            subprocess.run(["ip", "netns", "add", name], check=True)
        wire = Wire(names)
        yield wire
        wire.close()
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False)


class Cutter:
    """Carries connections to an address, counts their bytes, and cuts them at given counts.

    Attributes:
        up, down: Bytes carried so far, to the address and from it.
    """

    def __init__(self, target, *, cut_up=(), cut_down=()):
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._cuts = {"up": sorted(cut_up), "down": sorted(cut_down)}
        self.up = self.down = 0
        self.made = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self._pairs = []
        self._is_over = False
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def address(self):
        return f"127.0.0.1:{self._server.getsockname()[1]}"

    @property
    def cuts_left(self):
        return sum(map(len, self._cuts.values()))

    def _accept(self):
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target)
            except OSError:
                near.close()
                continue
            self.made += 1
            with self._lock:
                self._pairs.append((near, far))
                for name, source, sink in (("up", near, far), ("down", far, near)):
                    thread = threading.Thread(target=self._carry, args=(name, source, sink))
                    self._threads.append(thread)
                    thread.start()

    def _carry(self, name, source, sink):
        with suppress(OSError):
            while data := source.recv(65536):
                setattr(self, name, getattr(self, name) + len(data))
                if self._cuts[name] and getattr(self, name) >= self._cuts[name][0]:
                    self._cuts[name].pop(0)
                    self.cut()
                    return
                sink.sendall(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def cut(self):
        """Cut all connections; new ones are taken."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for each in pair:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()

    def close(self):
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._threads[0].join()
        self.cut()
        for thread in self._threads:
            thread.join()

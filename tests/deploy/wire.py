"""A wire between two network namespaces that delays, loses and cuts: a program, not a module.

    wire.py NAMESPACE_A ADDRESS_A NAMESPACE_B ADDRESS_B

Each namespace gets an interface `wire` with its address; what is sent into one comes out of the
other, after a delay, or not. Orders are lines: `delay SECONDS`, `loss SHARE`, `cut`, `join`; each
is answered by a line. (tc's netem does the same where the kernel has it.)
"""

import ctypes
import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import sys
import time
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_TUNSETIFF, _TUN, _NO_PI = 0x400454CA, 0x0001, 0x1000
_LARGEST = 65536
_QUEUE = 10_000  # packets on their way; more are lost, as in any router


def open_end(namespace: str, address: str) -> int:
    """Return the descriptor of a new interface within a namespace."""
    library = ctypes.CDLL(None, use_errno=True)
    with Path("/run/netns", namespace).open("rb") as file:
        if library.setns(file.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {namespace}")
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH22x", b"wire", _TUN | _NO_PI))
    for command in (
        f"ip addr add {address}/24 dev wire",
        "ip link set wire up",
        "ip link set lo up",
    ):
        subprocess.run(command.split(), check=True)
    return end


def main() -> None:
    """Carry packets until the input ends."""
    ends = [open_end(*sys.argv[i : i + 2]) for i in (1, 3)]
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    dice, delay, loss, is_cut = random.Random(1), 0.0, 0.0, False
    waiting: list[tuple[float, int, int, bytes]] = []
    count = 0
    print("ready", flush=True)
    while True:
        left = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        readable, _, _ = select.select([0, *ends], [], [], left)
        for descriptor in readable:
            if descriptor == 0:
                words = os.read(0, 200).decode().split()
                if not words:
                    return
                if words[0] == "delay":
                    delay = float(words[1])
                elif words[0] == "loss":
                    loss = float(words[1])
                else:
                    is_cut = words[0] == "cut"
                print("done", flush=True)
                continue
            packet = os.read(descriptor, _LARGEST)
            if is_cut or dice.random() < loss or len(waiting) >= _QUEUE:
                continue
            count += 1
            heapq.heappush(waiting, (time.monotonic() + delay, count, other[descriptor], packet))
        while waiting and waiting[0][0] <= time.monotonic():
            _, _, descriptor, packet = heapq.heappop(waiting)
            if not is_cut:
                os.write(descriptor, packet)


if __name__ == "__main__":
    main()

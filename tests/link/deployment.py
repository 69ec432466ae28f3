"""A federation's folders, made by the membership's own functions, and its coordinator's server."""

import select
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import grpc

from fedtrain.link import link_pb2, link_pb2_grpc
from fedtrain.link.status import answering
from fedtrain.link.tls import make_server_credentials, make_server_options, read_peer
from fedtrain.membership.adoption import adopt_membership
from fedtrain.membership.federation import approve, create_federation, load_federation
from fedtrain.membership.kits import install_kit
from fedtrain.membership.records import COORDINATOR
from fedtrain.membership.requests import create_request


def find_port():
    """Return a port of this machine that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Deployment:
    """A root, a coordinator and its members, each in a folder of its own."""

    def __init__(self, path, *, port=None, name="heart"):
        self.path = path
        self.address = f"127.0.0.1:{port or find_port()}"
        self.root = path / "root"
        create_federation(self.root, name, self.address)
        self.coordinator = self.join("center", COORDINATOR, address=self.address)

    def join(self, name, role="site", *, address="", days=None, now=None):
        """Return the folder of a new member."""
        folder = self.path / name
        folder.mkdir(mode=0o700, exist_ok=True)
        request = create_request(folder, name, role, address)
        install_kit(folder, approve(self.root, request, days=days, now=now), now=now)
        return folder

    @property
    def membership(self):
        """The newest."""
        return load_federation(self.root)

    def install(self, folder):
        """Hand a member the newest membership."""
        adopt_membership(folder, self.membership)


class Greeter(link_pb2_grpc.LinkServicer):
    """Says who it was called by."""

    def __init__(self, deployment):
        self.deployment = deployment
        self.calls = 0

    @answering
    def Hello(self, request, context):
        peer = read_peer(context, self.deployment.membership)
        self.calls += 1
        return link_pb2.HelloReply(version=f"{peer.role} {peer.name}")


@contextmanager
def serving(deployment, *, folder=None, credentials=None, options=()):
    """Serve until the end of the block."""
    server = grpc.server(ThreadPoolExecutor(8), options=[*make_server_options(), *options])
    greeter = Greeter(deployment)
    link_pb2_grpc.add_LinkServicer_to_server(greeter, server)
    found = credentials or make_server_credentials(folder or deployment.coordinator)
    server.add_secure_port(deployment.address, found)
    server.start()
    try:
        yield greeter
    finally:
        server.stop(None).wait()


def greet(channel, *, seconds=5.0):
    """Return whom a server takes this end for; the channel is closed."""
    with channel:
        stub = link_pb2_grpc.LinkStub(channel)
        return stub.Hello(link_pb2.HelloRequest(), timeout=seconds).version


@contextmanager
def answering_with(answer):
    """Listen on loopback; each connection is handed to a function, and closed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        is_over = threading.Event()

        def work():
            while not is_over.is_set():
                try:
                    raw, _ = server.accept()
                except TimeoutError:
                    continue
                raw.settimeout(5)
                with raw, suppress(OSError):
                    answer(raw)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            is_over.set()
            thread.join()


def read_head(raw):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += raw.recv(1)
    return head


def tunnel(raw, seen):
    """Do what a proxy does that allows CONNECT."""
    seen.append(read_head(raw).split(b"\r\n")[0])
    host, _, port = seen[-1].split(b" ")[1].partition(b":")
    with socket.create_connection((host.decode(), int(port))) as other:
        raw.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        while True:
            ready, _, _ = select.select([raw, other], [], [], 10)
            for one in ready:
                data = one.recv(65536)
                if not data:
                    return
                (other if one is raw else raw).sendall(data)

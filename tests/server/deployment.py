"""A federation on loopback with real keys, certificates and sockets; sites without data."""

import contextlib
import hashlib
import shutil
import socket
from pathlib import Path

from fedtrain.link import link_pb2
from fedtrain.link.contract import CHUNK_BYTES, CONTRACT
from fedtrain.link.link_pb2_grpc import LinkStub
from fedtrain.link.tls import open_channel
from fedtrain.membership.federation import approve, create_federation, load_federation, revoke
from fedtrain.membership.kits import install_kit
from fedtrain.membership.requests import create_request
from fedtrain.secagg.codec import encode
from server.coordinator import Coordinator
from server.operator import connect
from server.settings import ServerSettings, save_settings

SITES = ("a", "b")


def find_free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Deployment:
    """Folders of a federation's root, coordinator, operators and sites."""

    def __init__(self, path, *, sites=SITES, poll_seconds=5):
        self.path = path
        self.sites = sites
        self.address = f"127.0.0.1:{find_free_port()}"
        create_federation(path / "root", "demo", self.address)
        self.join("coordinator", "coordinator", self.address)
        for role in ("admin", "researcher", "auditor"):
            self.join(role, role)
        for site in sites:
            self.join(site, "site")
        settings = ServerSettings(address=self.address, poll_seconds=poll_seconds)
        save_settings(self.get("coordinator"), settings)
        (self.get("coordinator") / "membership.bin").write_bytes(self.read_membership())
        for name in ("admin", "researcher", "auditor", *sites):
            (self.get(name) / "membership.bin").write_bytes(self.read_membership())

    def get(self, name):
        return self.path / name

    def join(self, name, role, address=""):
        request = create_request(self.get(name), name, role, address)
        install_kit(self.get(name), approve(self.path / "root", request))

    def read_membership(self):
        return bytes(encode(load_federation(self.path / "root")))

    def revoke(self, name):
        return bytes(encode(revoke(self.path / "root", name)))

    @contextlib.contextmanager
    def serving(self, **options):
        coordinator = Coordinator(self.get("coordinator"), **options)
        try:
            coordinator.serve()
            yield coordinator
        finally:
            coordinator.close()

    @contextlib.contextmanager
    def site(self, name):
        with open_channel(self.get(name), self.address) as channel:
            yield SiteCalls(channel)

    def operator(self, role="admin"):
        return connect(self.get(role))


class SiteCalls:
    """What an agent calls, with nothing around it."""

    def __init__(self, channel):
        self.stub = LinkStub(channel)
        self.session = b""

    def hello(self, last=b"", *, contract=CONTRACT):
        request = link_pb2.HelloRequest(version="0.1.0", contract=contract, last_session=last)
        reply = self.stub.Hello(request, timeout=10)
        self.session = reply.session
        return reply

    def poll(self, *, reply=None, wait=0, paused=False, timeout=20):
        request = link_pb2.PollRequest(
            session=self.session, reply=reply, wait_seconds=wait, paused=paused
        )
        return self.stub.Poll(request, timeout=timeout)

    def start_poll(self, wait):
        request = link_pb2.PollRequest(session=self.session, wait_seconds=wait)
        return self.stub.Poll.future(request, timeout=60)

    def download(self, task, offset=0):
        request = link_pb2.DownloadRequest(session=self.session, task=task, offset=offset)
        return list(self.stub.Download(request, timeout=20))

    def find_upload(self, task, data):
        return self.stub.FindUpload(self._make_header(task, data), timeout=20)

    def upload(self, task, data, *, offset=0, end=None, declared=None):
        header = self._make_header(task, declared or data)

        def chunks():
            yield link_pb2.UploadChunk(header=header)
            for at in range(offset, len(data) if end is None else end, CHUNK_BYTES):
                yield link_pb2.UploadChunk(
                    offset=at, data=data[at : at + CHUNK_BYTES][: (end or len(data)) - at]
                )

        return self.stub.Upload(chunks(), timeout=20)

    def _make_header(self, task, data):
        digest = hashlib.sha256(data).digest()
        return link_pb2.UploadHeader(session=self.session, task=task, size=len(data), digest=digest)


def make_reply(task, data, *, size=None, digest=None):
    """Return a small reply to a task."""
    content = link_pb2.Content(
        size=len(data) if size is None else size,
        digest=digest or hashlib.sha256(data).digest(),
        inline=data,
    )
    return link_pb2.Reply(task=task, content=content)


def copy_deployment(template, path):
    """Return a deployment like another, with the same keys, in another folder."""
    shutil.copytree(template.path, path)
    copied = object.__new__(Deployment)
    copied.__dict__ = template.__dict__ | {"path": Path(path)}
    return copied

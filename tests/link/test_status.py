"""Errors over a real call: what the other end is told, and what it makes of it."""

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from fedtrain.errors import ConfigError, DataError, PeerError, RunDirectoryError, SiteError
from fedtrain.link import link_pb2, link_pb2_grpc
from fedtrain.link.faults import (
    ContentError,
    ContractError,
    IdentityError,
    ParcelError,
    RefusedError,
    RevokedError,
    UnavailableError,
)
from fedtrain.link.status import answering, describe_status, translate

SECRET = "/data/patients.csv"


class SessionError(PeerError):
    code = "session"


class Thrower(link_pb2_grpc.LinkServicer):
    """Raises what a test wants, of a plain call and in the middle of a stream."""

    error = None

    @answering
    def Hello(self, request, context):
        raise self.error

    @answering
    def Download(self, request, context):
        yield link_pb2.Chunk(data=b"first")
        raise self.error

    @answering
    def GetMembership(self, request, context):
        return link_pb2.GetMembershipReply(membership=b"all is well")


@pytest.fixture(scope="module")
def link():
    """Return a servicer and a stub of it."""
    server, thrower = grpc.server(ThreadPoolExecutor(2)), Thrower()
    link_pb2_grpc.add_LinkServicer_to_server(thrower, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield thrower, link_pb2_grpc.LinkStub(channel)
    server.stop(None).wait()


def call(link, error):
    """Return what a call that raises an error is at this end."""
    link[0].error = error
    with pytest.raises(grpc.RpcError) as caught:
        link[1].Hello(link_pb2.HelloRequest(), timeout=5)
    return translate(caught.value)


def test_method_that_raises_nothing_answers(link):
    assert link[1].GetMembership(link_pb2.GetMembershipRequest()).membership == b"all is well"


@pytest.mark.parametrize(
    "kind", [ContentError, ContractError, IdentityError, RevokedError, UnavailableError]
)
def test_error_of_the_link_is_the_same_at_the_other_end(link, kind):
    found = call(link, kind("version 1 here, 2 there; update it"))
    assert type(found) is kind
    assert str(found) == "version 1 here, 2 there; update it"


@pytest.mark.parametrize("kind", [ConfigError, ParcelError, SessionError, PeerError])
def test_refusal_names_its_reason(link, kind):
    found = call(link, kind("no: not that"))
    assert isinstance(found, RefusedError)
    assert (found.reason, str(found)) == (kind.code, "no: not that")


@pytest.mark.parametrize("kind", [ValueError, OSError, SiteError, DataError, RunDirectoryError])
def test_fault_of_the_other_end_is_not_told_and_may_be_tried_again(link, kind, caplog):
    found = call(link, kind(SECRET))
    assert type(found) is UnavailableError
    assert "patients" not in str(found)
    assert SECRET in caplog.text


def test_stream_that_fails_says_why(link):
    link[0].error = ContentError("no such offset")
    stream = link[1].Download(link_pb2.DownloadRequest(), timeout=5)
    assert next(stream).data == b"first"
    with pytest.raises(grpc.RpcError) as caught:
        next(stream)
    assert type(translate(caught.value)) is ContentError


def test_call_that_the_other_end_does_not_know_is_refused(link):
    with pytest.raises(grpc.RpcError) as caught:
        link[1].Leave(link_pb2.LeaveRequest(), timeout=5)
    found = translate(caught.value)
    assert (type(found), found.reason) == (RefusedError, "unimplemented")


class Failure(grpc.RpcError):
    """What a stranger may say."""

    def __init__(self, status, details):
        self._said = status, details

    def code(self):
        return self._said[0]

    def details(self):
        return self._said[1]


@pytest.mark.parametrize(
    ("status", "details"),
    [
        (grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!"),
        (grpc.StatusCode.UNKNOWN, None),
        (grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2"),
        (grpc.StatusCode.UNAVAILABLE, "link-revoked: a status that does not go with the code"),
    ],
)
def test_failure_of_the_line_may_be_tried_again(status, details):
    assert type(translate(Failure(status, details))) is UnavailableError


def test_what_the_other_end_says_is_one_short_line():
    details = "config: \x1b[2Jline\nline\r" + "x" * 10_000
    text = str(translate(Failure(grpc.StatusCode.INVALID_ARGUMENT, details)))
    assert text.isprintable()
    assert len(text) <= 600


def test_second_agent_has_the_status_of_the_contract():
    class SecondAgentError(PeerError):
        code = "second-agent"

    status, text = describe_status(SecondAgentError("site alpha is connected"))
    assert status is grpc.StatusCode.ALREADY_EXISTS
    assert text == "second-agent: site alpha is connected"

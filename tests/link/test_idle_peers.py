"""Silent, slow and greedy peers: a member gets through beside them, and they are cut off."""

import socket
import time

import grpc
import pytest

from fedtrain.link import link_pb2, link_pb2_grpc
from fedtrain.link.contract import LARGEST_MESSAGE
from fedtrain.link.tls import open_channel
from tests.link.deployment import greet, serving


def dial(address):
    return socket.create_connection(("127.0.0.1", int(address.split(":")[1])), timeout=20)


@pytest.mark.parametrize("first", [b"", b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\r\n\r\n"])
def test_member_gets_through_beside_two_hundred_strangers(deployment, first):
    with serving(deployment):
        strangers = [dial(deployment.address) for _ in range(200)]
        try:
            for stranger in strangers:
                stranger.sendall(first)
            assert greet(open_channel(deployment.alpha, deployment.address)) == "site alpha"
        finally:
            for stranger in strangers:
                stranger.close()


@pytest.mark.slow
def test_stranger_who_makes_no_handshake_is_cut_off(deployment):
    with serving(deployment), dial(deployment.address) as stranger:
        begun = time.monotonic()
        assert stranger.recv(1) == b""
        assert 5 < time.monotonic() - begun < 15


def test_message_that_is_too_large_is_not_taken(deployment):
    with (
        serving(deployment) as greeter,
        open_channel(deployment.alpha, deployment.address) as channel,
    ):
        hello = channel.unary_unary("/fedtrain.link.v1.Link/Hello")
        with pytest.raises(grpc.RpcError) as caught:
            hello(bytes(LARGEST_MESSAGE + 1), timeout=5)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert greeter.calls == 0
        stub = link_pb2_grpc.LinkStub(channel)
        assert stub.Hello(link_pb2.HelloRequest(), timeout=5).version == "site alpha"


def test_message_that_is_none_is_refused_and_the_connection_goes_on(deployment):
    with serving(deployment), open_channel(deployment.alpha, deployment.address) as channel:
        hello = channel.unary_unary("/fedtrain.link.v1.Link/Hello")
        with pytest.raises(grpc.RpcError):
            hello(b"\xff\xff\xff", timeout=5)
        assert b"site alpha" in hello(b"", timeout=5)

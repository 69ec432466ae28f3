"""Through a proxy, and what an address answers to TLS before 1.3."""

import pytest

from fedtrain.link.faults import TransportError, UnavailableError
from fedtrain.link.handshake import connect, offer_old_tls
from fedtrain.link.tls import open_channel
from tests.link.deployment import answering_with, greet, read_head, serving, tunnel


def test_channel_goes_through_a_proxy(deployment, monkeypatch):
    monkeypatch.delenv("no_proxy", raising=False)
    seen = []
    with serving(deployment), answering_with(lambda raw: tunnel(raw, seen)) as proxy:
        assert greet(open_channel(deployment.alpha, deployment.address, proxy=proxy)) == (
            "site alpha"
        )
    assert seen == [f"CONNECT {deployment.address} HTTP/1.1".encode()] * 2


def test_channel_without_a_proxy_heeds_no_environment(deployment, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with serving(deployment):
        assert greet(open_channel(deployment.alpha, deployment.address)) == "site alpha"


@pytest.mark.parametrize("answer", [b"HTTP/1.1 403 Forbidden\r\n\r\n", b"", b"x" * 10_000])
def test_proxy_that_does_not_allow_it_is_named(deployment, answer):
    def refuse(raw):
        read_head(raw)
        raw.sendall(answer)

    with answering_with(refuse) as proxy, pytest.raises(UnavailableError, match=f"proxy {proxy}"):
        open_channel(deployment.alpha, "127.0.0.1:7443", proxy=proxy)


def test_proxy_that_is_not_there_is_named():
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1 does not answer"):
        connect("127.0.0.1:7443", proxy="127.0.0.1:1")


@pytest.mark.parametrize(
    ("answer", "is_taken"),
    [(b"\x16\x03\x03", True), (b"\x15\x03\x03\x00\x02\x02\x28", False), (b"", False)],
)
def test_old_tls_is_taken_by_whoever_goes_on_with_the_handshake(answer, is_taken):
    offers = []

    def reply(raw):
        offers.append(raw.recv(10_000))
        raw.sendall(answer)

    with answering_with(reply) as address:
        assert offer_old_tls(address) is is_taken
    # A ClientHello in the record layer, without the extension that offers TLS 1.3 (43).
    assert offers[0][0] == 0x16
    assert b"\x00\x2b\x00" not in offers[0]


def test_old_tls_cannot_be_told_of_what_is_no_tls():
    with (
        answering_with(lambda raw: raw.recv(10_000) and raw.sendall(b"HTTP")) as address,
        pytest.raises(TransportError, match="byte 0x48"),
    ):
        offer_old_tls(address)

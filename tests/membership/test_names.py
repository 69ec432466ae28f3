"""Names and addresses: what a certificate and a file name can hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrain.errors import ConfigError
from fedtrain.membership.names import check_name, parse_address


@pytest.mark.parametrize("name", ["ward", "Ward-3", "a", "3", "st.mary_icu", "x" * 64])
def test_name_is_taken(name):
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "-x", "a/b", "a b", "a\n", "ä", "x" * 65, "a:b"])
def test_name_that_a_file_or_certificate_cannot_hold_is_refused(name):
    with pytest.raises(ConfigError, match="choose another"):
        check_name(name)


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("train.example.org:7443", "train.example.org", 7443),
        ("localhost:1", "localhost", 1),
        ("127.0.0.1:65535", "127.0.0.1", 65535),
        ("[::1]:7443", "::1", 7443),
        ("3com.example:80", "3com.example", 80),
    ],
)
def test_address_is_split(address, host, port):
    assert parse_address(address) == (host, port)


@pytest.mark.parametrize(
    "address",
    [
        *("", "host", ":1", "host:", "host:0", "host:65536", "host:07", "host:7443 ", "host:-1"),
        *("a b:1", "a..b:1", ".a:1", "a.:1", "-a:1", "ä.org:1", "a/b:1", "http://a:1"),
        *("::1:7443", "[host]:1", "[127.0.0.1]:1", "010.0.0.1:1", "1.2.3:1", "[fe80::1%eth0]:1"),
        "x" * 254 + ":1",
    ],
)
def test_address_that_nobody_can_dial_is_refused(address):
    with pytest.raises(ConfigError, match=r"write e\.g\."):
        parse_address(address)


@pytest.mark.parametrize("address", ["0.0.0.0:7443", "[::]:7443"])
def test_address_that_a_server_listens_on_is_refused(address):
    with pytest.raises(ConfigError, match="not where it is found"):
        parse_address(address)


@given(st.text(max_size=80))
def test_any_text_is_an_address_or_refused(text):
    try:
        host, port = parse_address(text)
    except ConfigError:
        return
    assert text in (f"{host}:{port}", f"[{host}]:{port}")

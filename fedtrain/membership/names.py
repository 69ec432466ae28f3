"""Names of members and addresses of coordinators, as certificates and files can hold them."""

import ipaddress
import re
from typing import Final

from fedtrain.errors import ConfigError

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LABEL: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_MOST_HOST: Final = 253


def check_name(name: str, what: str = "name") -> str:
    """Return a name of a member or a federation.

    Raises:
        ConfigError: It has characters that a certificate's URI or a file name cannot hold.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{what} {name[:80]!r} is not 1 to 64 of A-Z a-z 0-9 . _ - beginning with a letter or"
            " digit; choose another"
        )
    return name


def parse_address(address: str) -> tuple[str, int]:
    """Return host and port of "host:port"; an IPv6 host stands in brackets.

    Raises:
        ConfigError: It is no address that others can dial.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) > 65535:
        raise ConfigError(
            f"address {address[:80]!r} is not HOST:PORT with a port from 1 to 65535; write e.g."
            " train.example.org:7443"
        )
    return _parse_host(host, address), int(port)


def find_ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the host as an IP address, or None for a DNS name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _parse_host(host: str, address: str) -> str:
    bracketed = host.startswith("[") and host.endswith("]")
    bare = host[1:-1] if bracketed else host
    found = find_ip(bare)
    if found is not None and found.is_unspecified:
        raise ConfigError(
            f"address {address!r} is where a server listens, not where it is found; give the name"
            " or number that sites dial"
        )
    is_number = re.fullmatch(r"[0-9.]+", bare) is not None
    is_named = len(bare) <= _MOST_HOST and all(_LABEL.fullmatch(part) for part in bare.split("."))
    if found is None:
        is_host = is_named and not is_number and not bracketed
    else:
        is_host = (found.version == 6) == bracketed
    if not is_host or "%" in bare:  # a zone means something on one machine alone
        raise ConfigError(
            f"address {address[:80]!r} has no host name or IP number; write e.g."
            " train.example.org:7443, 10.0.0.7:7443 or [fd00::7]:7443"
        )
    return bare

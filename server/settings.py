"""The file `server.toml`: where a coordinator listens and how long it waits."""

import json
import tomllib
from pathlib import Path
from typing import Final

from pydantic import Field, ValidationError

from fedtrain.config import Section, describe_problem
from fedtrain.errors import ConfigError
from fedtrain.link.contract import LARGEST_CONTENT, POLL_SECONDS
from fedtrain.membership.files import write_file
from fedtrain.membership.names import find_ip, parse_address

SETTINGS_FILE: Final = "server.toml"
_HEADER: Final = """\
# How this coordinator serves. Every key is here; a commented one shows its default.
"""


class ServerSettings(Section):
    """How a coordinator serves."""

    address: str = Field("", description='"host:port" that sites dial, as in its certificate.')
    listen: str = Field(
        "",
        description='"host:port" to listen on; default: all of the machine at the address\'s port.',
    )
    wait_for_sites: float = Field(
        86_400.0, gt=0, description="Seconds that a run waits for all of its sites to be there."
    )
    poll_seconds: int = Field(
        POLL_SECONDS, ge=1, le=600, description="Longest wait of a poll; the heartbeat."
    )
    largest_content: int = Field(
        LARGEST_CONTENT, ge=2**20, description="Most bytes of one message to or from a site."
    )
    metrics_port: int = Field(
        0, ge=0, le=65535, description="Loopback port of Prometheus metrics; 0: none."
    )


def load_settings(folder: Path) -> ServerSettings:
    """Read a coordinator's settings.

    Raises:
        ConfigError: The file is missing, cannot be read, or does not satisfy the schema.
    """
    path = folder / SETTINGS_FILE
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
        settings = ServerSettings.model_validate_json(json.dumps(tree, default=str))
        parse_address(settings.address)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path} is missing: {folder} is no coordinator's folder; make one with fedtrain server"
            " init"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    except ValidationError as error:
        raise ConfigError(f"{path}: {describe_problem(error, ServerSettings)}") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read ({reason}); write it anew") from error
    return settings


def save_settings(folder: Path, settings: ServerSettings) -> None:
    """Write a coordinator's settings, every key explained.

    Raises:
        SiteError: The file cannot be written.
    """
    from fedtrain.report.scenario import render_keys

    text = "\n".join([_HEADER, *render_keys(settings)])
    write_file(folder / SETTINGS_FILE, text.encode())


def choose_listen(settings: ServerSettings) -> str:
    """Return where to listen: on loopback where that is the address, else on all interfaces."""
    if settings.listen:
        return settings.listen
    host, port = parse_address(settings.address)
    found = find_ip(host)
    if host == "localhost" or (found is not None and found.is_loopback):
        return f"[{host}]:{port}" if found is not None and found.version == 6 else f"{host}:{port}"
    return f"[::]:{port}"

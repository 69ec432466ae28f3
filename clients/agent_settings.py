"""The file `agent.toml`: how a site's agent finds its coordinator and its data."""

import json
import tomllib
from pathlib import Path
from typing import Final

from pydantic import Field, ValidationError

from fedtrain.config import Section, describe_problem
from fedtrain.errors import ConfigError
from fedtrain.membership.files import write_file

SETTINGS_FILE: Final = "agent.toml"
_HEADER: Final = """\
# How this site's agent finds its coordinator and its data. It never leaves the site.
# Every key is here; a commented one shows its default. An empty file is enough.
"""


class AgentSettings(Section):
    """How an agent runs."""

    coordinator: str = Field(
        "", description='"host:port" to dial; default: as the membership has it.'
    )
    proxy: str = Field(
        "", description='"host:port" of an HTTP proxy that allows CONNECT; default: none.'
    )
    data_path: str = Field("", description="The site's data, a file or folder; no run says it.")
    partition_id: int = Field(
        0, ge=0, description="Which site of the data this is, where one file holds several."
    )
    threads: int = Field(
        0, ge=0, description="Threads that training may use; 0: as many as there are cores."
    )
    metrics_port: int = Field(
        0, ge=0, le=65535, description="Loopback port of Prometheus metrics; 0: none."
    )
    stop_seconds: float = Field(
        10.0, ge=0, description="Longest wait for a task that is being worked on, at a stop."
    )
    outbox_bytes: int = Field(
        8 * 2**30, ge=2**20, description="Most bytes of replies that are kept until acknowledged."
    )


def load_settings(site: Path) -> AgentSettings:
    """Read the settings in a site's folder; a file that is missing is an empty one.

    Raises:
        ConfigError: The file cannot be read or does not satisfy the schema.
    """
    path = site / SETTINGS_FILE
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
        return AgentSettings.model_validate_json(json.dumps(tree, default=str))
    except FileNotFoundError:
        return AgentSettings()
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    except ValidationError as error:
        raise ConfigError(f"{path}: {describe_problem(error, AgentSettings)}") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read ({reason}); write it anew") from error


def save_settings(site: Path, settings: AgentSettings) -> None:
    """Write the settings into a site's folder, every key explained.

    Raises:
        SiteError: The file cannot be written.
    """
    write_file(site / SETTINGS_FILE, describe_settings(settings).encode())


def describe_settings(settings: AgentSettings) -> str:
    """Return a commented `agent.toml` with every key, its meaning and its default."""
    from fedtrain.report.scenario import render_keys

    return "\n".join([_HEADER, *render_keys(settings)])

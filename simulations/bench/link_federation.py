"""The benchmark's federation: folders with keys and certificates, and data for secure rounds."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from fedtrain.membership.adoption import adopt_membership
from fedtrain.membership.federation import approve, create_federation, load_federation
from fedtrain.membership.kits import install_kit
from fedtrain.membership.records import ADMIN, COORDINATOR, SITE_ROLE
from fedtrain.membership.requests import create_request

from ..loading import load_app, refer_to_sibling

_FEATURES: Final = 10
_RECORDS: Final = 200  # a site
_POLICY: Final = "\nuncovered_metrics = true\n"
SCENARIO: Final = """\
[run]
name = "bench_link"
[data]
source = "csv"
label = "label"
classes = ["0", "1"]
preparation = "bounds"
validation_fraction = 0.0
test_fraction = 0.25
[data.bounds]
{bounds}
[partition]
scheme = "natural"
[model]
name = "logistic"
[training]
learning_rate = 0.1
sampling = "poisson"
sample_rate = 0.1
local_steps = 1
expected_batch_size = 10
[federation]
rounds = {rounds}
evaluate_every = 0
round_timeout = 60.0
[privacy]
unit = "record"
target_epsilon = 3.0
target_delta = 1e-5
max_grad_norm = 0.5
metrics = "suppressed"
[secure_aggregation]
mode = "protocol"
"""


@dataclass(frozen=True)
class Federation:
    """Folders of a coordinator, its administrator and its sites, all in one.

    Attributes:
        path: That folder.
        address: Of the coordinator.
        sites: Names.
    """

    path: Path
    address: str
    sites: tuple[str, ...]

    @property
    def coordinator(self) -> Path:
        """The coordinator's folder."""
        return self.path / "coordinator"

    @property
    def admin(self) -> Path:
        """The administrator's folder."""
        return self.path / "admin"

    def get_folder(self, site: str) -> Path:
        """Return a site's folder."""
        return self.path / site

    def write_scenario(self, *, rounds: int) -> Path:
        """Write a scenario with secure aggregation of so many rounds."""
        bounds = "\n".join(f"x{number} = [-4, 4]" for number in range(_FEATURES))
        path = self.path / "secure.toml"
        path.write_text(SCENARIO.format(bounds=bounds, rounds=rounds), encoding="utf-8")
        return path


def make_federation(path: Path, *, sites: int) -> Federation:
    """Make a federation of sites with a few records each, as its commands would.

    Args:
        path: A folder that is empty.
        sites: How many.
    """
    names = tuple(f"site-{number}" for number in range(sites))
    federation = Federation(path, f"127.0.0.1:{find_free_port()}", names)
    create_federation(path / "root", "bench", federation.address)
    _join(federation, "coordinator", COORDINATOR, federation.address)
    settings, save = _load("server.settings:ServerSettings"), _load("server.settings:save_settings")
    save(federation.coordinator, settings(address=federation.address))
    _join(federation, "admin", ADMIN)
    for number, name in enumerate(names):
        _make_site(federation, name, number)
    adopt_membership(federation.coordinator, load_federation(path / "root"))
    return federation


def find_free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def make_environment() -> dict[str, str]:
    """Return this process's environment for others: one thread each, as they share the machine."""
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    return os.environ | quiet | {"OMP_NUM_THREADS": "1"}


def _make_site(federation: Federation, name: str, number: int) -> None:
    folder, data = federation.get_folder(name), federation.path / f"{name}.csv"
    _write_records(data, number)
    _load("clients.custody:create_custody")(folder, name)
    with (folder / "policy.toml").open("a", encoding="utf-8") as file:
        file.write(_POLICY)
    settings = _load("clients.agent_settings:AgentSettings")
    _load("clients.agent_settings:save_settings")(folder, settings(data_path=str(data), threads=1))
    _load("clients.agent_folder:open_agent_folder")(folder)
    _join(federation, name, SITE_ROLE)


def _join(federation: Federation, name: str, role: str, address: str = "") -> None:
    folder = federation.path / name
    folder.mkdir(mode=0o700, exist_ok=True)
    request = create_request(folder, name, role, address)
    install_kit(folder, approve(federation.path / "root", request))


def _write_records(path: Path, number: int) -> None:
    generator = np.random.default_rng(number)
    features = generator.uniform(-2, 2, (_RECORDS, _FEATURES)).round(4)
    lines = [",".join([*(f"x{i}" for i in range(_FEATURES)), "label"])]
    lines += [",".join([*map(str, row), str(int(row.sum() > 0))]) for row in features]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _load(reference: str) -> Any:
    return load_app(refer_to_sibling(reference))

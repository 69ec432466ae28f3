"""The files that an agent is deployed with are not built here, but they are read."""

import re
import tomllib
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).resolve().parents[2] / "clients" / "deploy"
VERSION = tomllib.loads((FOLDER.parents[1] / "pyproject.toml").read_text())["project"]["version"]


@pytest.fixture(scope="module")
def unit() -> ConfigParser:
    parser = ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str
    parser.read(FOLDER / "fedtrain-agent@.service")
    return parser


@pytest.fixture(scope="module")
def agent() -> dict:
    return yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]["agent"]


@pytest.fixture(scope="module")
def steps() -> list[tuple[str, str]]:
    """The Dockerfile's instructions with their arguments."""
    text = re.sub(r"\\\n\s*", " ", (FOLDER / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [tuple(line.split(None, 1)) for line in lines]


def test_unit_has_its_sections(unit):
    assert unit.sections() == ["Unit", "Service", "Install"]
    assert unit["Service"]["ExecStart"].endswith("fedtrain client start /var/lib/fedtrain/%i")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("User", "fedtrain"),
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("ReadWritePaths", "/var/lib/fedtrain/%i"),
        ("CapabilityBoundingSet", ""),
        ("Restart", "on-failure"),
        ("LimitCORE", "0"),
    ],
)
def test_unit_is_confined(unit, key, value):
    assert unit["Service"][key] == value


@pytest.mark.parametrize("key", ["MemoryMax", "CPUQuota", "TasksMax"])
def test_unit_limits_what_an_agent_takes(unit, key):
    assert unit["Service"][key]


def test_unit_waits_longer_for_a_stop_than_the_agent_does(unit):
    from clients.agent_settings import AgentSettings

    assert int(unit["Service"]["TimeoutStopSec"]) > AgentSettings().stop_seconds + 30


def test_container_is_confined(agent):
    assert agent["user"] == "10001:10001"
    assert agent["read_only"] is True
    assert agent["cap_drop"] == ["ALL"]
    assert agent["security_opt"] == ["no-new-privileges:true"]


def test_container_publishes_nothing_and_shares_nothing_with_the_host(agent):
    assert not {"ports", "expose", "network_mode", "privileged", "pid", "ipc"} & set(agent)
    assert not {"cap_add", "devices", "environment"} & set(agent)


def test_container_may_only_read_the_data(agent):
    mounts = {mount["target"]: mount.get("read_only", False) for mount in agent["volumes"]}
    assert mounts == {"/sites": False, "/data": True}


@pytest.mark.parametrize("key", ["mem_limit", "cpus", "pids_limit", "ulimits"])
def test_container_has_limits(agent, key):
    assert agent[key]


def test_container_and_image_run_this_version(agent):
    assert agent["image"] == f"fedtrain-agent:{VERSION}"


def test_image_is_pinned_and_ends_as_a_user_without_rights(steps):
    bases = [argument.split()[0] for step, argument in steps if step == "FROM"]
    assert bases
    assert all(re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", base) for base in bases)
    assert [argument for step, argument in steps if step == "USER"] == ["10001:10001"]


def test_image_fetches_nothing_but_packages(steps):
    assert not [argument for step, argument in steps if step == "ADD"]
    runs = " ".join(argument for step, argument in steps if step == "RUN")
    assert not re.search(r"\b(curl|wget|git|https?:)", runs)


def test_image_copies_only_what_is_there(steps):
    copied = [argument.split()[:-1] for step, argument in steps if step == "COPY"]
    names = [name for names in copied for name in names if not name.startswith(("--", "/"))]
    assert names
    assert all((FOLDER.parents[1] / name).exists() for name in names)

"""The stubs are what `make stubs` writes from the contract."""

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINK = ROOT / "fedtrain" / "link"
STUBS = ("link_pb2.py", "link_pb2.pyi", "link_pb2_grpc.py", "link_pb2_grpc.pyi")


def require_pinned(name):
    """Skip unless the pinned release of a generator is installed."""
    pinned = re.search(rf'"{name}==([^"]+)"', (ROOT / "pyproject.toml").read_text())[1]
    try:
        found = version(name)
    except PackageNotFoundError:
        pytest.skip(f"{name} is not installed")
    if found != pinned:
        pytest.skip(f"{name} {found} is installed, {pinned} is pinned")


def test_stubs_are_what_the_contract_gives(tmp_path):
    require_pinned("grpcio-tools")
    require_pinned("mypy-protobuf")
    recipe = (ROOT / "Makefile").read_text().partition("\nstubs:")[2].partition("\n\n")[0]
    arguments = recipe.partition("grpc_tools.protoc")[2].replace("\\\n", " ").split()
    arguments = [part.replace("$(STUBS)", str(tmp_path)) for part in arguments]
    scripts = str(Path(sys.executable).parent)
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", *arguments],
        cwd=ROOT,
        env={"PATH": f"{scripts}:/usr/bin:/bin"},
        check=True,
    )
    for name in STUBS:
        made = (tmp_path / "fedtrain" / "link" / name).read_text()
        assert made == (LINK / name).read_text(), f"{name} is stale; make stubs"


def test_stubs_run_with_the_oldest_allowed_grpc_and_protobuf():
    project = (ROOT / "pyproject.toml").read_text()
    grpc_needed = re.search(r"GRPC_GENERATED_VERSION = '([0-9.]+)'", _read("link_pb2_grpc.py"))[1]
    protobuf_needed = re.search(r"# Protobuf Python Version: ([0-9.]+)", _read("link_pb2.py"))[1]
    grpc_allowed = re.search(r'"grpcio>=([0-9.]+)"', project)[1]
    protobuf_allowed = re.search(r'"protobuf>=([0-9.]+),<7"', project)[1]
    assert _order(grpc_allowed) >= _order(grpc_needed)[:2]
    assert _order(protobuf_allowed) >= _order(protobuf_needed)


def _read(name):
    return (LINK / name).read_text()


def _order(text):
    return tuple(int(part) for part in text.split("."))

"""The same apps on Flower's own engines: real processes on loopback, started as the README says.

A SuperNode starts a process for every message and polls every 3 s, so that a round of training and
evaluation takes 20 s: the shortest run that crosses everything is tested always, others are slow.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
import zipfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from clients.custody import create_custody
from fedtrain.ledger.verify import read_noted_heads, verify_ledger
from fedtrain.report.verify import verify_run
from fedtrain.secagg.files import save_public_key, save_roster
from fedtrain.secagg.roster import Identity, make_roster, sign_roster

APP = Path(__file__).resolve().parents[1] / "simulations" / "flower-app"
COMMANDS = Path(sys.executable).parent
START_SECONDS, RUN_SECONDS, STOP_SECONDS = 60, 240, 20

TRAINED = """
[secure_aggregation]
mode = "off"
[data]
source = "sklearn:digits"
[partition]
sites = 2
[model]
name = "logistic"
[federation]
rounds = 2
"""
# One round trip a round: nothing is held out, so nothing is evaluated.
SHORTEST = """
[secure_aggregation]
mode = "off"
[data]
source = "sklearn:digits"
validation_fraction = 0.0
test_fraction = 0.0
[partition]
sites = 2
[model]
name = "logistic"
[federation]
rounds = 1
"""
PRIVATE = f"""{SHORTEST}
[training]
sampling = "poisson"
sample_rate = 0.25
local_steps = 2
expected_batch_size = 200
[privacy]
unit = "record"
noise_multiplier = 1.0
"""


# Sites with keys, policy and ledger of their own; no plain update leaves one.
SECURE = PRIVATE.replace('mode = "off"', 'mode = "protocol"').replace("sites = 2", "sites = 3")


@dataclass(frozen=True)
class Link:
    """A running SuperLink and how to reach it."""

    folder: Path
    port: int
    environment: dict[str, str]

    def run(self, scenario: str, name: str, *options: str, extra: str = "") -> str:
        """Run a scenario through `flwr run`; return what it showed."""
        file, out = self.folder / f"{name}.toml", self.folder / name
        file.write_text(f'[run]\nname = "{name}"\n{scenario}')
        settings = f'scenario="{file}" out="{out}" {extra}'
        return self.call("run", APP, "lab", "--stream", "--run-config", settings, *options)

    def list_runs(self) -> list[dict]:
        return json.loads(self.call("list", "lab", "--format", "json"))["runs"]

    def call(self, *arguments: str | Path) -> str:
        done = subprocess.run(
            [COMMANDS / "flwr", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def find_free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def run_process(link: Link, name: str, *arguments: str):
    """Run a Flower process, log in a file, and end it with all that it started."""
    with (link.folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [COMMANDS / arguments[0], *arguments[1:]],
            env=link.environment,
            cwd=link.folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        end_group(process.pid)


def end_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def make_link(folder: Path, port: int) -> Link:
    home = folder / "home"
    home.mkdir()
    (home / "config.toml").write_text(
        '[superlink]\ndefault = "lab"\n'
        f'[superlink.lab]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    environment = os.environ | {
        "PATH": f"{COMMANDS}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    return Link(folder, port, environment)


def wait_until_healthy(process: subprocess.Popen, port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the SuperLink ended with {process.returncode}"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1) as response:
                if response.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the SuperLink did not answer within {START_SECONDS} s")


@contextmanager
def start_superlink(folder: Path, port: int, *options: str):
    link = make_link(folder, port)
    flags = ("--insecure", "--host", "127.0.0.1", "--port", str(port), *options)
    command = ("flower-superlink", *flags, "--disable-runtime-dependency-installation")
    with run_process(link, "superlink", *command) as process:
        wait_until_healthy(process, port)
        yield link


@pytest.fixture(scope="module")
def superlink(tmp_path_factory):
    """A SuperLink with two SuperNodes."""
    port, *node_ports = find_free_ports(3)
    with (
        start_superlink(tmp_path_factory.mktemp("superlink"), port) as link,
        ExitStack() as nodes,
    ):
        for i, node_port in enumerate(node_ports):
            address = ("--host", "127.0.0.1", "--port", str(node_port))
            config = ("--node-config", f"partition-id={i} num-partitions=2")
            command = ("--insecure", "--superlink", f"127.0.0.1:{port}", *address, *config)
            nodes.enter_context(run_process(link, f"node{i}", "flower-supernode", *command))
        yield link


@pytest.fixture(scope="module")
def ray_superlink(tmp_path_factory):
    """A SuperLink in simulation mode: it starts Ray for each run."""
    pytest.importorskip("ray", reason="Flower's Ray engine is not installed (the extra 'ray')")
    (port,) = find_free_ports(1)
    with start_superlink(tmp_path_factory.mktemp("ray"), port, "--simulation") as link:
        yield link


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def read_state(run: Path) -> dict:
    return json.loads((run / "state.json").read_text())


def simulate(link: Link, name: str) -> Path:
    """Run the same scenario over the in-process grid."""
    out = link.folder / f"{name}-here"
    subprocess.run(
        [COMMANDS / "fedtrain", "simulate", link.folder / f"{name}.toml", "--out", out, "--quiet"],
        env=link.environment,
        capture_output=True,
        timeout=RUN_SECONDS,
        check=True,
    )
    return out


def assert_equal_runs(run: Path, other: Path) -> None:
    """Same metrics but for the time, same releases, the same bytes of the model."""
    local = {"seconds", "bytes_up", "bytes_down"}
    lines, others = read_lines(run / "metrics.jsonl"), read_lines(other / "metrics.jsonl")
    for line in (*lines, *others):
        for key in local:
            line.pop(key, None)
    assert lines == others
    assert (run / "ledger.jsonl").read_bytes() == (other / "ledger.jsonl").read_bytes()
    assert (run / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def test_bundle_holds_no_code(tmp_path):
    command = [COMMANDS / "flwr", "build", "--app", APP]
    subprocess.run(command, env=make_link(tmp_path, 1).environment, cwd=tmp_path, check=True)
    (bundle,) = tmp_path.glob("*.fab")
    assert set(zipfile.ZipFile(bundle).namelist()) == {"pyproject.toml", ".info/CONTENT"}


def test_bundle_installs_nothing():
    project = tomllib.loads((APP / "pyproject.toml").read_text())["project"]
    assert project["dependencies"] == []


@pytest.mark.slow
def test_superlink_run_equals_the_simulation(superlink):
    shown = superlink.run(SHORTEST, "shortest")
    run = superlink.folder / "shortest"
    assert read_state(run)["status"] == "finished", shown
    assert "round_committed round=1 cohort=2 survivors=2" in shown
    assert_equal_runs(run, simulate(superlink, "shortest"))


@pytest.mark.slow
def test_superlink_run_that_cannot_start_says_why(superlink):
    shown = superlink.run(SHORTEST, "wrong", "--run-config", 'set="federation.rounds=0"')
    assert "federation.rounds = 0: input should be greater than or equal to 1" in shown
    assert shown.count('  File "') < 8
    newest = max(superlink.list_runs(), key=lambda run: run["pending-at"])
    assert newest["status"] == "finished:failed"
    assert "federation.rounds = 0" in newest["status-details"]
    assert not (superlink.folder / "wrong").exists()


@pytest.mark.slow
def test_superlink_run_is_complete(superlink):
    superlink.run(TRAINED, "trained")
    run = superlink.folder / "trained"
    assert read_state(run)["status"] == "finished"
    lines = read_lines(run / "metrics.jsonl")
    assert [line["round"] for line in lines] == [1, 2]
    assert lines[-1]["test_accuracy"] > 0.7
    assert all(np.isfinite(array).all() for array in load_file(run / "model.safetensors").values())
    files = {"config.toml", "environment.json", "log.txt", "model.json", "curves.png"}
    assert files <= {path.name for path in run.iterdir()}
    assert_equal_runs(run, simulate(superlink, "trained"))


@pytest.mark.slow
def test_superlink_private_run_draws_from_the_operating_system(superlink):
    for name in ("private-a", "private-b"):
        superlink.run(PRIVATE, name)
        assert read_state(superlink.folder / name)["status"] == "finished"
    first, second = superlink.folder / "private-a", superlink.folder / "private-b"
    entries = read_lines(first / "ledger.jsonl")
    assert [entry["mechanism"] for entry in entries] == ["poisson_sampled_gaussian"] * 2
    assert read_lines(first / "metrics.jsonl")[0]["epsilon"] > 0
    entries += read_lines(second / "ledger.jsonl")
    assert len({entry["update_digest"] for entry in entries}) == 4
    assert (first / "model.safetensors").read_bytes() != (second / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    """A federation's folder: three sites' folders, and the roster that its root signed."""
    folder, root = tmp_path_factory.mktemp("federation"), Identity.generate()
    sites = [create_custody(folder / name, name) for name in ("anna", "berta", "clara")]
    keys = {site.name: site.identity.public_key for site in sites}
    roster = sign_roster(make_roster("lab", 1, keys=keys), root)
    for place in (folder, *(site.path for site in sites)):
        save_public_key(place / "root.pub", root.public_key)
        save_roster(place / "roster.bin", roster)
    return folder


@pytest.fixture(scope="module")
def secure_superlink(tmp_path_factory, federation):
    """A SuperLink with three SuperNodes, each with its site's folder."""
    port, *node_ports = find_free_ports(4)
    with (
        start_superlink(tmp_path_factory.mktemp("secure"), port) as link,
        ExitStack() as nodes,
    ):
        for i, (name, node_port) in enumerate(
            zip(("anna", "berta", "clara"), node_ports, strict=True)
        ):
            address = ("--host", "127.0.0.1", "--port", str(node_port))
            own = f'partition-id={i} num-partitions=3 site-dir="{federation / name}"'
            command = ("--insecure", "--superlink", f"127.0.0.1:{port}", *address)
            process = run_process(link, name, "flower-supernode", *command, "--node-config", own)
            nodes.enter_context(process)
        yield link


@pytest.mark.slow
def test_superlink_runs_the_protocol_with_real_sites(secure_superlink, federation):
    pinned = f'roster="{federation / "roster.bin"}" root="{federation / "root.pub"}"'
    shown = secure_superlink.run(SECURE, "secure", extra=pinned)
    run = secure_superlink.folder / "secure"
    assert read_state(run)["status"] == "finished", shown
    (line,) = read_lines(run / "metrics.jsonl")
    assert (line["survivors"], line["threshold"]) == (3, 3)
    assert "void" not in line
    assert not [check for check in verify_run(run) if check.failed]


@pytest.mark.slow
def test_real_sites_pay_from_their_own_ledgers(secure_superlink, federation):
    run = secure_superlink.folder / "secure"
    assert run.exists(), "the test before this one runs the federation"
    for name in ("anna", "berta", "clara"):
        heads = read_noted_heads(run, name)
        assert len(heads) == 1
        checks = verify_ledger(federation / name / "ledger", heads=heads)
        assert not [check for check in checks if check.failed]


@pytest.mark.ray
def test_ray_run_equals_the_simulation(ray_superlink):
    shown = ray_superlink.run(TRAINED, "trained", "--federation-config", "num-supernodes=2")
    run = ray_superlink.folder / "trained"
    assert read_state(run)["status"] == "finished", shown
    assert_equal_runs(run, simulate(ray_superlink, "trained"))

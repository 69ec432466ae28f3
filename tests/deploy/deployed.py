"""A deployed federation: folders of root, coordinator, operator and sites, and their processes."""

import json
import os
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import numpy as np

from clients.agent_settings import AgentSettings, save_settings
from clients.custody import create_custody, open_custody
from fedtrain.ledger.verify import read_entries, verify_ledger
from fedtrain.membership.federation import approve, create_federation, load_federation
from fedtrain.membership.kits import install_kit
from fedtrain.membership.requests import create_request
from fedtrain.policy import Policy
from server.operator import connect
from server.settings import ServerSettings
from server.settings import save_settings as save_server_settings

SITES = ("anna", "berta", "clara")
START_SECONDS, STOP_SECONDS, RUN_SECONDS = 90, 30, 180
COMMAND = Path(sys.executable).with_name("fedtrain")
# What each site has: two columns and a label.
DATA = """[data]
source = "csv"
label = "sick"
classes = ["0", "1"]
preparation = "bounds"
validation_fraction = 0.0
test_fraction = 0.0
[data.bounds]
age = [-3, 3]
pulse = [-3, 3]
[partition]
scheme = "natural"
"""
SCENARIO = f"""
[run]
name = "heart"
{DATA}[model]
name = "logistic"
[training]
learning_rate = 1.0
sampling = "poisson"
sample_rate = 0.5
local_steps = 1
expected_batch_size = 30
[federation]
rounds = 2
round_timeout = 120
[privacy]
unit = "record"
noise_multiplier = 2.0
[secure_aggregation]
mode = "protocol"
"""


def wait_until(is_so, seconds=RUN_SECONDS, what="it"):
    """Return what `is_so()` gives as soon as that is true; fail when it never is."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := is_so():
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen within {seconds} s")


def find_free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Nursery:
    """Starts processes; a process of its own that has loaded what they load."""

    def __init__(self, folder, *prefix):
        self._log = (folder / "nursery.txt").open("w")
        script = Path(__file__).with_name("nursery.py")
        self._program = subprocess.Popen(
            [*prefix, sys.executable, str(script)],
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._answer()

    def order(self, **order):
        self._program.stdin.write(json.dumps(order) + "\n")
        self._program.stdin.flush()
        return self._answer()

    def _answer(self):
        line = self._program.stdout.readline()
        assert line, f"the nursery ended: {Path(self._log.name).read_text()}"
        return json.loads(line)

    def close(self):
        self._program.stdin.close()
        self._program.wait(STOP_SECONDS)
        self._program.stdout.close()
        self._log.close()


class Process:
    """A child of a nursery."""

    def __init__(self, nursery, folder, kind, **options):
        self._nursery = nursery
        self.log = folder / "process.txt"
        self._begin = self.log.stat().st_size if self.log.exists() else 0
        order = {"folder": folder, "log": self.log, **options}
        order = {key: str(value) for key, value in order.items()}
        self.pid = nursery.order(start=kind, **order)["pid"]
        self._descriptor = os.pidfd_open(self.pid)
        self.code = None

    @property
    def has_ended(self):
        return self.code is not None or bool(select.select([self._descriptor], [], [], 0)[0])

    def wait(self, seconds=STOP_SECONDS):
        """Return the exit code once it has ended."""
        if self.code is None:
            ended, _, _ = select.select([self._descriptor], [], [], seconds)
            assert ended, f"{self.log.parent.name} still runs: {self.read_log()[-2000:]}"
            os.close(self._descriptor)
            self.code = self._nursery.order(reap=self.pid)["code"]
        return self.code

    def send(self, number):
        if self.code is None:
            signal.pidfd_send_signal(self._descriptor, number)

    def kill(self):
        if self.code is None:
            self.send(signal.SIGKILL)
            self.wait()

    def stop(self):
        self.send(signal.SIGTERM)
        return self.wait()

    def read_log(self):
        return self.log.read_bytes()[self._begin :].decode() if self.log.exists() else ""

    def read_memory(self):
        """Return resident bytes."""
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


class Deployed:
    """A federation in a folder; `close` kills what still runs."""

    def __init__(self, path, nursery, *, host="127.0.0.1", sites=SITES, poll_seconds=5, **policy):
        self.path, self.nursery, self.sites = path, nursery, sites
        self.address = f"{host}:{find_free_port()}"
        self.processes = []
        self.places = {}
        path.mkdir(parents=True, exist_ok=True)
        create_federation(self.root, "demo", self.address)
        self.join("coordinator", "coordinator", self.address)
        self.join("admin", "admin")
        for i, site in enumerate(sites):
            self.add_site(site, seed=i, **policy)
        self.set_up_coordinator(poll_seconds=poll_seconds)
        for name in ("coordinator", "admin"):
            shutil.copyfile(self.root / "membership.bin", self.get(name) / "membership.bin")

    @property
    def root(self):
        return self.path / "root"

    @property
    def coordinator(self):
        return self.get("coordinator")

    def get(self, name):
        return self.places.get(name, self.path / name)

    def set_up_coordinator(self, **settings):
        save_server_settings(self.coordinator, ServerSettings(address=self.address, **settings))

    def join(self, name, role, address=""):
        request = create_request(self.get(name), name, role, address)
        install_kit(self.get(name), approve(self.root, request))

    def add_site(self, name, *, seed=0, **policy):
        allowed = {"max_epsilon": 1000.0, "lifetime_epsilon": 2000.0, **policy}
        create_custody(self.get(name), name, policy=Policy(**allowed))
        data = self.path / f"{name}.csv"
        write_data(data, seed=seed)
        save_settings(self.get(name), AgentSettings(data_path=str(data), threads=1))
        self.join(name, "site")

    def set_agent(self, name, **settings):
        data = str(self.path / f"{name}.csv")
        save_settings(self.get(name), AgentSettings(data_path=data, threads=1, **settings))

    def start(self, name, *, nursery=None, **options):
        kind = "coordinator" if name == "coordinator" else "agent"
        process = Process(nursery or self.nursery, self.get(name), kind, **options)
        self.processes.append(process)
        return process

    def start_coordinator(self, **options):
        """Start the coordinator; return when it listens."""
        process = self.start("coordinator", **options)

        def listens():
            assert not process.has_ended, process.read_log()
            return "coordinator_listens" in process.read_log()

        wait_until(listens, START_SECONDS, "listening")
        return process

    def start_agents(self, **options):
        return {name: self.start(name, **options) for name in self.sites}

    @contextmanager
    def operate(self):
        with connect(self.get("admin")) as calls:
            yield calls

    def submit(self, scenario=SCENARIO, *overrides, sites=()):
        file = self.path / "heart.toml"
        file.write_text(scenario)
        with self.operate() as calls:
            return calls.submit(file, overrides=list(overrides), sites=list(sites))

    def submit_from(self, namespace, scenario, *overrides):
        """Submit a run by the command, from within a network namespace."""
        file = self.path / "heart.toml"
        file.write_text(scenario)
        options = [word for override in overrides for word in ("--set", override)]
        return self.command_from(namespace, "run", file, *options)

    def command_from(self, namespace, name, *arguments):
        """Give an operator's command from within a network namespace; return what it prints."""
        command = [*namespace, COMMAND, "server", name, *arguments, "--as", self.get("admin")]
        done = subprocess.run(
            command, cwd=self.path, capture_output=True, text=True, timeout=RUN_SECONDS, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def find_run(self, run):
        with self.operate() as calls:
            return calls.find_run(run)

    def wait_for_run(self, run, status="finished", seconds=RUN_SECONDS):
        """Return once a run's directory says that it has ended as wanted."""

        def has_ended():
            found = self.read_state(run)["status"]
            return found if found in ("finished", "failed", "stopped") else None

        found = wait_until(has_ended, seconds, f"the end of {run}")
        assert found == status, self.read_state(run)["reason"]

    def wait_for_online(self, *sites, seconds=START_SECONDS):
        def are_online():
            with self.operate() as calls:
                online = {one.name for one in calls.list_sites() if one.state == "online"}
            return set(sites or self.sites) <= online

        wait_until(are_online, seconds, "all sites online")

    def get_run(self, run):
        return self.coordinator / "runs" / run

    def read_state(self, run):
        try:
            return json.loads((self.get_run(run) / "state.json").read_text())
        except FileNotFoundError:
            return {"status": "queued", "round": 0, "reason": None}

    def read_metrics(self, run):
        lines = (self.get_run(run) / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def read_model(self, run):
        return (self.get_run(run) / "model.safetensors").read_bytes()

    def read_status(self, site):
        try:
            return json.loads((self.get(site) / "agent" / "status.json").read_text())
        except (FileNotFoundError, ValueError):
            return {"state": "", "missing": "", "task": "", "last_error": ""}

    def query(self, query):
        """Return the first value that the coordinator's database has for a query."""
        path = self.coordinator / "link.db"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return connection.execute(query).fetchone()[0]

    def has_finished(self, run):
        return self.query(f"SELECT status FROM runs WHERE run = '{run}'") == "finished"

    def read_releases(self, site):
        """Return run and round of each release that a site's ledger has paid; it must hold."""
        folder = self.get(site) / "ledger"
        assert not [check for check in verify_ledger(folder) if check.failed]
        bodies = [entry.body for entry in read_entries(folder)]
        return [(body.run, body.round) for body in bodies if body.kind == "committed"]

    def move(self, name, target):
        """Move a member's folder elsewhere, such as to another disk."""
        shutil.copytree(self.get(name), target, dirs_exist_ok=True)
        target.chmod(0o700)
        self.places[name] = target

    def copy(self, path):
        """Return the same federation, with the same keys and all that it has done, elsewhere."""
        shutil.copytree(self.path, path)
        copied = object.__new__(Deployed)
        copied.__dict__ = self.__dict__ | {"path": path, "processes": []}
        return copied

    def read_membership(self):
        return load_federation(self.root)

    def close(self):
        with ExitStack() as stack:
            for process in self.processes:
                stack.callback(process.kill)


def write_data(path, *, seed, records=60):
    random = np.random.default_rng(seed)
    rows = random.normal(size=(records, 2))
    labels = (rows.sum(axis=1) > 0).astype(int)
    lines = [f"{a:.4f},{b:.4f},{label}" for (a, b), label in zip(rows, labels, strict=True)]
    path.write_text("age,pulse,sick\n" + "\n".join(lines) + "\n")


def prepare_run(deployed, run):
    """Draw each site's secret of a run, so that copies of the folders draw the same."""
    run_id = deployed.read_state(run)["run_id"]
    for site in deployed.sites:
        open_custody(deployed.get(site)).load_secret(run_id)

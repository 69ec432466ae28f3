"""`fedtrain demo deploy`: root, coordinator and three sites on loopback, each in its own folder.

Everything is done by the commands that people would type, in processes of their own, so that what
is left behind is what a real deployment leaves, and can be looked at and started again.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from fedtrain.errors import ConfigError, RunDirectoryError, RunFailedError

HOSPITALS: Final = ("cleveland", "hungarian", "va")
CLINICS: Final = ("anna", "berta", "clara")
# Of scikit-learn's breast cancer data: the last ten columns, the "worst" of each measurement.
_FIRST_COLUMN: Final = 20
_STOP_SECONDS: Final = 20.0
_START_SECONDS: Final = 60.0
# The sites of the demo let uncovered metrics go, which a site's policy by default does not.
_POLICY: Final = "uncovered_metrics = true\n"


@dataclass(frozen=True)
class Demo:
    """A demo's folder.

    Attributes:
        path: The folder.
        scenario: Its scenario file.
        data: The file of each site.
        address: Of the coordinator.
    """

    path: Path
    scenario: Path
    data: dict[str, Path]
    address: str

    @property
    def coordinator(self) -> Path:
        """The coordinator's folder."""
        return self.path / "coordinator"

    @property
    def operator(self) -> Path:
        """The folder of the coordinator's administrator."""
        return self.coordinator / "admin"


def prepare(path: Path, heart_disease: Path | None, *, rounds: int | None) -> Demo:
    """Make a demo's folder with its data and its scenario.

    Args:
        path: Must not exist.
        heart_disease: Folder of the heart-disease CSV files; where they are not, three sites share
            scikit-learn's breast-cancer data.
        rounds: Instead of the scenario's.

    Raises:
        RunDirectoryError: The folder exists or cannot be made.
        ConfigError: The heart-disease files are asked for and not there.
    """
    source = _find_hospitals(heart_disease)
    try:
        path.mkdir(parents=True)
        (path / "data").mkdir()
    except OSError as error:
        raise RunDirectoryError(
            f"{path} cannot be made ({error.strerror}); name a folder that does not exist"
        ) from error
    if source is None:
        data, name = _write_breast_cancer(path / "data"), "breast_cancer"
    else:
        data, name = _copy_hospitals(source, path / "data"), "heart_disease"
    text = (Path(__file__).parent / f"{name}.toml").read_text(encoding="utf-8")
    if rounds is not None:
        text = text.replace("rounds = 15", f"rounds = {rounds}", 1)
    scenario = path / f"{name}.toml"
    scenario.write_text(text, encoding="utf-8")
    return Demo(path, scenario, data, f"127.0.0.1:{_find_free_port()}")


def deploy(demo: Demo) -> None:
    """Make every party's folder and keys, as each party would.

    Raises:
        RunFailedError: A command failed.
    """
    root, path = demo.path / "root", demo.path
    run_command("federation", "new", root, "--name", "demo", "--coordinator", demo.address)
    run_command("server", "init", demo.coordinator, "--address", demo.address)
    _approve(demo, demo.coordinator, "server")
    _approve(demo, demo.operator, "client")
    for name, data in demo.data.items():
        run_command("client", "init", path / name, "--name", name, "--data", data.resolve())
        with (path / name / "policy.toml").open("a", encoding="utf-8") as file:
            file.write(f"\n# Added by the demo.\n{_POLICY}")
        _approve(demo, path / name, "client")
    run_command("server", "install", root / "membership.bin", "--dir", demo.coordinator)


def _approve(demo: Demo, folder: Path, party: str) -> None:
    """Carry a request to the root, and the kit back."""
    kit = folder / "member.kit"
    root = demo.path / "root"
    run_command("federation", "approve", root, folder / "request.bin", "--out", kit, "--yes")
    run_command(party, "join", kit, folder, "--yes")  # it came from the folder beside


@contextmanager
def running(demo: Demo) -> Iterator[None]:
    """Keep the coordinator and all agents running; stop them, and no others, at the end."""
    with ExitStack() as processes:
        processes.enter_context(_running("server", demo.coordinator))
        for name in demo.data:
            processes.enter_context(_running("client", demo.path / name))
        yield


@contextmanager
def _running(party: str, folder: Path) -> Iterator[None]:
    log = (folder / "demo.txt").open("w", encoding="utf-8")
    process = subprocess.Popen(
        _make_command(party, "start", folder), stdout=log, stderr=log, env=_make_environment()
    )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


def train(demo: Demo) -> Path:
    """Submit the scenario, wait for its end, and fetch its run directory.

    Returns:
        The run directory, fetched into the demo's folder.

    Raises:
        RunFailedError: The run did not finish.
    """
    _wait_for_coordinator(demo)
    operator = ("--as", demo.operator)
    run = run_command("server", "run", demo.scenario, *operator, "--wait").splitlines()[-1]
    target = demo.path / "run"
    run_command("server", "fetch", run, *operator, "--out", target)
    return target


def run_command(*arguments: object) -> str:
    """Run a command of fedtrain in a process of its own; return what it printed.

    Raises:
        RunFailedError: It failed; its own line says why.
    """
    command = _make_command(*arguments)
    done = subprocess.run(
        command, env=_make_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise RunFailedError(
            f"'fedtrain {' '.join(command[3:])}' ended with {done.returncode}:"
            f" {said[-1] if said else 'it said nothing'}"
        )
    return done.stdout


def _wait_for_coordinator(demo: Demo) -> None:
    deadline = time.monotonic() + _START_SECONDS
    host, _, port = demo.address.rpartition(":")
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex((host, int(port))) == 0:
                return
        time.sleep(0.2)
    raise RunFailedError(
        f"the coordinator does not listen on {demo.address} after {_START_SECONDS:g} s;"
        f" {demo.coordinator / 'demo.txt'} says why"
    )


def _make_command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "fedtrain", *map(str, arguments)]


def _make_environment() -> dict[str, str]:
    """Return this process's environment, one thread a process: four of them share the machine."""
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    return os.environ | quiet | {"OMP_NUM_THREADS": "1"}


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _find_hospitals(folder: Path | None) -> Path | None:
    """Return the folder of the heart-disease files; None where there is none and none is asked."""
    wanted = Path("heart_disease") if folder is None else folder
    missing = [name for name in HOSPITALS if not (wanted / f"{name}.csv").is_file()]
    if not missing:
        return wanted
    if folder is not None:
        raise ConfigError(
            f"{folder} holds no {missing[0]}.csv; give the folder of the heart-disease files, or"
            " leave the option out"
        )
    return None


def _copy_hospitals(source: Path, target: Path) -> dict[str, Path]:
    for name in HOSPITALS:
        shutil.copyfile(source / f"{name}.csv", target / f"{name}.csv")
    return {name: target / f"{name}.csv" for name in HOSPITALS}


def _write_breast_cancer(target: Path) -> dict[str, Path]:
    """Deal scikit-learn's breast-cancer records to three files; label 1 is malignant."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    header = [str(name).replace(" ", "_") for name in data.feature_names[_FIRST_COLUMN:]]
    order = np.random.default_rng(0).permutation(len(data.target))
    files = {}
    for number, name in enumerate(CLINICS):
        files[name] = target / f"{name}.csv"
        rows: list[Sequence[str]] = [[*header, "malignant"]]
        for i in order[number :: len(CLINICS)]:
            values = [f"{value:.6g}" for value in data.data[i, _FIRST_COLUMN:]]
            rows.append([*values, str(1 - data.target[i])])
        text = "".join(",".join(row) + "\n" for row in rows)
        files[name].write_text(text, encoding="utf-8")
    return files

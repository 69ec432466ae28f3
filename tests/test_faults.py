"""What goes wrong while a run goes on: it goes on, or stops and says how to resume."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from fedtrain import cli
from fedtrain.config import load_config
from fedtrain.runs import RunDirectory

DIGITS = """
[secure_aggregation]
mode = "off"
[partition]
sites = 4
[model]
hidden = [8]
[federation]
rounds = 4
"""
# A model of the user's own whose loss is NaN at one site: where a record holds 99.
OWN = """
import numpy as np
import torch
from torch import nn

def load():
    generator = np.random.default_rng(0)
    sites = {}
    for name in ("east", "north", "south"):
        x = generator.normal(size=(40, 4)).astype(np.float32)
        if name == "north":
            x[:, 0] = 99.0
        sites[name] = x, np.arange(40) % 2
    return sites

class Fragile(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.layer = nn.Linear(4, classes)
    def forward(self, x):
        return self.layer(x) * torch.where(x[:, :1] == 99.0, torch.nan, 1.0)

def build(input_shape, classes):
    return Fragile(classes)
"""
FRAGILE = """
[secure_aggregation]
mode = "off"
[data]
source = "{name}:load"
preparation = "none"
[partition]
scheme = "natural"
[model]
name = "{name}:build"
[federation]
rounds = 2
"""
LONG = ["--set", "federation.rounds=60"]


class Output(NamedTuple):
    """What a command said."""

    code: int
    out: str
    err: str


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a scenario."""
    (tmp_path / "digits.toml").write_text(DIGITS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


@pytest.fixture
def simulate(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Output]:
    """Return a function that runs `fedtrain simulate` in this process."""

    def run(*argv: str) -> Output:
        code = cli.main(["simulate", *argv])
        return Output(code, *capsys.readouterr())

    return run


def read_tree(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def read_state(path: Path) -> dict:
    return json.loads((path / "state.json").read_text())


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def read_results(path: Path) -> list[bytes]:
    """Return what must not depend on how often a run was interrupted."""
    names = ("model.safetensors", "model.json", "ledger.jsonl", "sites.json")
    return [(path / name).read_bytes() for name in names]


def wait_for(path: Path, wanted: int, process: "subprocess.Popen[str]") -> None:
    """Wait until a run has begun (its log is there) and committed so many rounds."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if (path / "log.txt").exists() and read_state(path)["round"] >= wanted:
            return
        time.sleep(0.002)
    raise TimeoutError(f"{path} did not reach round {wanted}")


# What is printed.


def test_last_line_of_output_is_the_run_directory(simulate, folder):
    output = simulate("digits.toml", "--out", "my run/für")
    assert output.code == 0
    assert output.out.splitlines()[-1] == "my run/für"
    assert (folder / "my run" / "für" / "model.safetensors").exists()


def test_quiet_prints_the_run_directory_only(simulate):
    assert simulate("digits.toml", "--out", "a", "--quiet") == (0, "a\n", "")


def test_json_prints_one_object(simulate):
    output = simulate("digits.toml", "--out", "a", "--json")
    assert (output.code, output.err, output.out.count("\n")) == (0, "", 1)
    summary = json.loads(output.out)
    assert summary["directory"] == "a"
    assert len(summary["metrics"]) == 4


# Sites that have too little.


@pytest.mark.parametrize(
    ("labels", "event"),
    [
        ("1" * 40, "one_class sites=south"),
        ("01010101", "fewer_records_than_a_batch sites=south"),
        ("1", "one_class sites=south"),
    ],
)
def test_poor_site_is_warned_of_and_the_run_goes_on(simulate, folder, labels, event):
    (folder / "sites").mkdir()
    for name, column in (("north", "01" * 30), ("south", labels)):
        rows = [f"{i % 7},{label}" for i, label in enumerate(column)]
        (folder / "sites" / f"{name}.csv").write_text("\n".join(["dose,sick", *rows]))
    (folder / "poor.toml").write_text(
        '[data]\nsource = "csv"\npath = "sites"\nlabel = "sick"\n'
        '[partition]\nscheme = "natural"\n[model]\nname = "logistic"\n'
        '[secure_aggregation]\nmode = "off"'
    )
    output = simulate("poor.toml", "--out", "a", "--quiet")
    assert output == (0, "a\n", "")
    log = (folder / "a" / "log.txt").read_text()
    assert any("WARNING" in line and event in line for line in log.splitlines())


# Updates that are not finite.


def test_loss_that_is_nan_at_one_site_drops_its_update_alone(simulate, folder):
    name = f"fragile_{folder.name}"
    (folder / f"{name}.py").write_text(OWN)
    (folder / "fragile.toml").write_text(FRAGILE.format(name=name))
    assert simulate("fragile.toml", "--out", "a").code == 0
    lines = read_lines(folder / "a" / "metrics.jsonl")
    assert [(line["cohort"], line["survivors"]) for line in lines] == [(3, 2), (3, 2)]
    sites = {line["site"] for line in read_lines(folder / "a" / "ledger.jsonl")}
    assert sites == {"east", "south"}
    assert "update_dropped site=north" in (folder / "a" / "log.txt").read_text()


# Run directories.


def test_existing_run_is_not_written_over(simulate, folder):
    simulate("digits.toml", "--out", "a")
    before = read_tree(folder / "a")
    output = simulate("digits.toml", "--out", "a")
    assert output.code == 3
    assert output.err.count("\n") == 1
    assert "go on with it by --resume a" in output.err
    assert read_tree(folder / "a") == before


def test_finished_run_is_shown_again_and_not_changed(simulate, folder):
    first = simulate("digits.toml", "--out", "a")
    before = read_tree(folder / "a")
    assert simulate("--resume", "a").out == first.out
    assert simulate("digits.toml", "--resume", "a", "--quiet") == (0, "a\n", "")
    assert read_tree(folder / "a") == before


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (["--set", "federation.rounds=9"], 3, "was started from another config"),
        (["--set", "run.seed=1"], 3, "was started from another config"),
        (["--set", "federation.round=9"], 2, "did you mean federation.rounds?"),
    ],
)
def test_run_of_another_config_is_not_resumed(simulate, folder, change, code, message):
    simulate("digits.toml", "--out", "a")
    before = read_tree(folder / "a")
    for scenario in ([], ["digits.toml"]):
        output = simulate(*scenario, "--resume", "a", *change)
        assert (output.code, output.out, output.err.count("\n")) == (code, "", 1)
        assert message in output.err
    assert read_tree(folder / "a") == before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("state.json", "{", "state.json is damaged"),
        ("config.toml", "[run]\nseed = 5\n", "was changed after the run began"),
        ("environment.json", "{}", "environment.json is missing or damaged"),
        ("metrics.jsonl", "", "were committed; the run cannot be resumed"),
    ],
)
def test_damaged_run_is_not_resumed(simulate, folder, name, content, message):
    simulate("digits.toml", "--out", "a")
    (folder / "a" / name).write_text(content)
    before = read_tree(folder / "a")
    output = simulate("--resume", "a")
    assert (output.code, output.out, output.err.count("\n")) == (8, "", 1)
    assert message in output.err
    assert read_tree(folder / "a") == before


def test_run_in_use_is_refused(simulate, folder):
    run = RunDirectory.create(folder / "a", load_config(folder / "digits.toml"))
    output = simulate("--resume", "a")
    run.close()
    assert output.code == 3
    assert "in use by another process" in output.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_that_cannot_be_written_is_refused(simulate, folder):
    (folder / "locked").mkdir(mode=0o500)
    output = simulate("digits.toml", "--out", "locked/a")
    assert output.code == 3
    assert "Permission denied" in output.err


# Signals and limits from outside.


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The results of `LONG`, run through."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "digits.toml").write_text(DIGITS)
    options = [str(folder / "digits.toml"), *LONG, "--out", str(folder / "run"), "--quiet"]
    assert cli.main(["simulate", *options]) == 0
    return read_results(folder / "run")


def start(*options: str, limit: int | None = None) -> "subprocess.Popen[str]":
    """Start the command as a process, in which no file may grow beyond `limit` bytes."""

    def set_limit() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-m", "fedtrain", "simulate", "digits.toml", "--out", "a", *options]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, preexec_fn=set_limit)


def test_disk_that_is_full_at_once_leaves_nothing(folder):
    process = start("--quiet", limit=512)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.count("\n")) == (3, "", 1)
    assert "cannot be made (File too large); make room there" in err
    assert not (folder / "a").exists()


@pytest.mark.parametrize("kib", [8, pytest.param(40, marks=pytest.mark.slow)])
def test_full_disk_keeps_what_is_committed(simulate, folder, whole, kib):
    process = start("--quiet", *LONG, limit=kib * 1024)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.count("\n")) == (3, "", 1)
    assert "--resume a" in err
    assert "Traceback" not in err
    assert read_state(folder / "a")["status"] == "failed"
    assert simulate("--resume", "a").code == 0
    assert read_results(folder / "a") == whole


@pytest.mark.parametrize("wanted", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_interrupted_run_goes_on_to_the_same_bytes(simulate, folder, whole, wanted):
    process = start(*LONG)
    wait_for(folder / "a", wanted, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "go on with: fedtrain simulate --resume a" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert simulate("--resume", "a").code == 0
    assert read_results(folder / "a") == whole


@pytest.mark.slow
def test_killed_worker_changes_nothing(folder, whole):
    process = start(*LONG, "--set", "simulation.workers=2")
    wait_for(folder / "a", 3, process)
    os.kill(max(find_workers(process.pid)), signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out.splitlines()[-1]) == (0, "a")
    assert "Traceback" not in err
    assert read_results(folder / "a") == whole


def find_workers(process: int) -> list[int]:
    """Return the children of a process's fork server."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    return [leaf for child in children.get(process, []) for leaf in children.get(child, [])]


INTERRUPTED = """
def make(input_shape, classes):
    exec("raise KeyboardInterrupt")  # as in an import that makes a dataclass
"""


def test_interrupt_in_code_made_from_text_is_an_exit_code(folder):
    (folder / "own.py").write_text(INTERRUPTED)
    process = start("--set", "model.name=own:make", "--set", "model.hidden=[]")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "fedtrain: interrupted\n")

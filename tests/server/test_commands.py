"""The command `fedtrain server`, against a coordinator that serves from this process."""

import json

import pytest

from fedtrain.cli import main
from fedtrain.membership.federation import approve, create_federation
from fedtrain.membership.kits import save_kit
from fedtrain.membership.requests import load_request
from server.folder import hold_lock
from tests.server.test_control_service import SCENARIO


@pytest.fixture
def run(deployment, capsys):
    """Run a command of an operator; return its exit code and its standard output."""

    def run_(*arguments, role="admin"):
        command = ["server", *map(str, arguments)]
        if role is not None:
            command += ["--as", str(deployment.get(role))]
        code = main(command)
        return code, capsys.readouterr().out

    return run_


@pytest.fixture
def scenario(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SCENARIO)
    return path


def make_coordinator(tmp_path):
    """Do what an operator and the federation's root do before the first start."""
    root, folder = tmp_path / "root", tmp_path / "coordinator"
    create_federation(root, "demo", "127.0.0.1:7443")
    assert main(["server", "init", str(folder), "--address", "127.0.0.1:7443"]) == 0
    for path in (folder, folder / "admin"):
        save_kit(path / "kit", approve(root, load_request(path / "request.bin")))
        assert main(["server", "join", str(path / "kit"), str(path), "--yes"]) == 0
    return root, folder


def test_folder_is_made_joined_and_installed(tmp_path, capsys):
    root, folder = make_coordinator(tmp_path)
    newer = str(root / "membership.bin")
    assert main(["server", "install", newer, "--dir", str(folder)]) == 0
    assert (folder / "membership.bin").read_bytes() == (root / "membership.bin").read_bytes()
    assert main(["server", "install", newer, "--dir", str(folder)]) == 0
    assert "nothing to do" in capsys.readouterr().err


def test_joining_asks_for_the_fingerprint(tmp_path, monkeypatch, capsys):
    root, folder = tmp_path / "root", tmp_path / "coordinator"
    create_federation(root, "demo", "127.0.0.1:7443")
    main(["server", "init", str(folder), "--address", "127.0.0.1:7443"])
    save_kit(folder / "kit", approve(root, load_request(folder / "request.bin")))
    monkeypatch.setattr("sys.stdin.readline", lambda: "no\n", raising=False)
    assert main(["server", "join", str(folder / "kit"), str(folder)]) == 2
    assert not (folder / "root.pub").exists()


def test_private_files_are_private(tmp_path):
    _, folder = make_coordinator(tmp_path)
    assert folder.stat().st_mode & 0o077 == 0
    modes = {path.name: path.stat().st_mode & 0o077 for path in folder.glob("*.key")}
    assert modes == {"identity.key": 0, "tls.key": 0}


def test_second_coordinator_in_a_folder_is_refused(deployment, capsys):
    folder = deployment.get("coordinator")
    with hold_lock(folder):
        assert main(["server", "start", str(folder)]) == 3
    assert "in use" in capsys.readouterr().err


def test_folder_without_a_certificate_does_not_start(tmp_path, capsys):
    main(["server", "init", str(tmp_path / "c"), "--address", "127.0.0.1:7443"])
    assert main(["server", "start", str(tmp_path / "c")]) == 5
    assert "joined no federation" in capsys.readouterr().err


def test_membership_is_handed_to_a_coordinator_that_runs(deployment, run):
    newer = deployment.path / "newer.bin"
    newer.write_bytes(deployment.revoke("b"))
    with deployment.serving() as coordinator:
        assert run("install", newer)[0] == 0
        assert coordinator.get_membership().membership.version == 8


def test_submitted_run_is_listed_stopped_and_resumed(deployment, run, scenario):
    with deployment.serving():
        name = run("run", scenario, "--sites", "a", "--set", "federation.rounds=7")[1].strip()
        [listed] = json.loads(run("runs", "--json")[1])
        assert (listed["run"], listed["rounds"], listed["sites"]) == (name, 7, ["a"])
        assert run("stop", name) == (0, f"{name} stopped\n")
        assert run("resume", name)[1].split()[0] == name


def test_tables_and_json_say_the_same(deployment, run):
    with deployment.serving(), deployment.site("a") as site:
        site.hello()
        sites = json.loads(run("sites", "--json")[1])
        assert [(s["name"], s["state"]) for s in sites] == [("a", "online"), ("b", "never")]
        assert "online" in run("sites")[1]
        status = json.loads(run("status", "--json")[1])
        assert (status["sites"], status["online"], status["running"]) == (2, 1, "")
        assert "1 of 2 online" in run("status")[1]


def test_audit_log_is_checked(deployment, run, scenario, capsys):
    with deployment.serving():
        run("run", scenario)
    folder = deployment.get("coordinator")
    code, out = run("audit", folder, role=None)
    assert (code, out.split()[:2]) == (0, ["4", "lines,"])
    path = folder / "audit.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"admin"', b'"eve"', 1))
    assert run("audit", folder, role=None)[0] == 8


def test_coordinator_that_does_not_answer_is_said_in_one_line(deployment, run, capsys):
    assert run("status")[0] == 7


def test_operators_folder_that_is_missing_is_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["server", "status"]) == 2
    assert "--as" in capsys.readouterr().err

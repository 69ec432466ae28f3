import io
import json

import pytest

from clients.agent_folder import hold_lock, open_agent_folder
from clients.agent_status import StatusBoard
from clients.control import Wish, read_wish
from fedtrain import cli
from fedtrain.membership.federation import approve
from fedtrain.membership.kits import save_kit
from fedtrain.membership.requests import (
    compute_fingerprint,
    compute_root_fingerprint,
    load_request,
)
from fedtrain.secagg.files import load_root_key


def run(capsys, *arguments):
    """Run a command; return its exit code, what it printed and what it said."""
    code = cli.main(["client", *map(str, arguments)])
    return code, *capsys.readouterr()


@pytest.fixture
def kit(deployment, tmp_path, capsys):
    """A kit for a site whose folder was made by the command."""
    folder = tmp_path / "anna"
    assert cli.main(["client", "init", str(folder), "--name", "anna"]) == 0
    request = load_request(folder / "request.bin")
    save_kit(tmp_path / "anna.kit", approve(deployment.root, request))
    capsys.readouterr()
    return tmp_path / "anna.kit"


@pytest.mark.parametrize("kind", ["init", "join", "check", "start", "status", "pause", "leave"])
def test_help_prints(capsys, kind):
    code, out, _ = run(capsys, kind, "--help")
    assert code == 0
    assert out.startswith(f"usage: fedtrain client {kind}")


def test_init_makes_a_site_and_its_request(capsys, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    folder = tmp_path / "anna"
    code, out, err = run(capsys, "init", folder, "--name", "anna", "--data", data)
    assert (code, out) == (0, f"{folder / 'request.bin'}\n")
    assert compute_fingerprint(load_request(folder / "request.bin")) in err
    assert f'data_path = "{data}"' in (folder / "agent.toml").read_text()
    assert (folder / "ledger").is_dir()


def test_init_again_keeps_keys_and_request(capsys, tmp_path):
    first = run(capsys, "init", tmp_path / "anna", "--name", "anna")
    keys = [(tmp_path / "anna" / name).read_bytes() for name in ("identity.key", "tls.key")]
    assert run(capsys, "init", tmp_path / "anna", "--name", "anna") == first
    assert [(tmp_path / "anna" / name).read_bytes() for name in ("identity.key", "tls.key")] == keys


def test_init_of_an_operator_has_no_ledger(capsys, tmp_path):
    code, _, _ = run(capsys, "init", tmp_path / "eve", "--name", "eve", "--role", "auditor")
    assert code == 0
    assert load_request(tmp_path / "eve" / "request.bin").role == "auditor"
    assert not (tmp_path / "eve" / "ledger").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("--name", "a/b"), id="name"),
        pytest.param(("--name", "a", "--data", "/nowhere"), id="no data"),
        pytest.param(("--name", "a", "--role", "admin", "--data", "/"), id="data of an admin"),
        pytest.param(("--name", "a", "--role", "king"), id="role"),
    ],
)
def test_init_refuses_in_one_line_and_makes_nothing(capsys, tmp_path, arguments):
    code, _, err = run(capsys, "init", tmp_path / "anna", *arguments)
    assert code == 2
    assert err.count("\n") == 1
    assert not (tmp_path / "anna").exists()


def test_join_asks_about_the_root(capsys, kit, monkeypatch, deployment):
    monkeypatch.setattr("sys.stdin", io.StringIO("yes\n"))
    code, _, err = run(capsys, "join", kit, kit.parent / "anna")
    assert code == 0
    assert compute_root_fingerprint(load_root_key(deployment.root / "root.pub")) in err
    assert "fedtrain client check" in err


def test_join_that_is_not_confirmed_changes_nothing(capsys, kit, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("no\n"))
    assert run(capsys, "join", kit, kit.parent / "anna")[0] == 2
    assert not (kit.parent / "anna" / "root.pub").exists()


def test_join_refuses_another_root(capsys, kit):
    code, _, err = run(capsys, "join", kit, kit.parent / "anna", "--root-fingerprint", "0000 " * 10)
    assert code == 7
    assert err.count("\n") == 1
    assert not (kit.parent / "anna" / "root.pub").exists()


def test_join_again_does_not_ask(capsys, kit):
    assert run(capsys, "join", kit, kit.parent / "anna", "--yes")[0] == 0
    assert run(capsys, "join", kit, kit.parent / "anna")[0] == 0


def test_check_exits_with_one_where_something_is_to_be_done(capsys, site):
    code, out, _ = run(capsys, "check", site)
    assert code == 1
    lines = out.splitlines()
    assert {line[:3] for line in lines} == {"ok ", "FIX"}


def test_check_exits_with_zero_where_all_is_well(capsys, site, coordinator):
    code, out, _ = run(capsys, "check", site, "--json")
    assert code == 0
    assert all(finding["is_ok"] for finding in json.loads(out)["findings"])


def test_start_without_a_kit_is_one_line(capsys, tmp_path):
    run(capsys, "init", tmp_path / "anna", "--name", "anna")
    code, _, err = run(capsys, "start", tmp_path / "anna")
    assert (code, err.count("\n")) == (5, 1)


def test_status_of_an_agent_that_never_ran(capsys, site):
    code, out, _ = run(capsys, "status", site)
    assert code == 0
    assert "never started" in out
    assert run(capsys, "status", site, "--quiet")[0] == 1


def test_status_of_a_running_agent(capsys, site):
    folder = open_agent_folder(site)
    with hold_lock(folder):
        StatusBoard(folder.status, "berlin").update(state="working")
        assert run(capsys, "status", site, "--quiet") == (0, "", "")
        tree = json.loads(run(capsys, "status", site, "--json")[1])
    assert (tree["state"], tree["running"]) == ("working", True)


@pytest.mark.parametrize(("word", "wish"), [("pause", Wish.PAUSE), ("resume", Wish.RUN)])
def test_wish_is_kept_for_the_next_agent(capsys, site, word, wish):
    code, _, err = run(capsys, word, site)
    assert (code, read_wish(open_agent_folder(site))) == (0, wish)
    assert "the next one" in err


def test_leave_without_an_agent_changes_nothing(capsys, site):
    assert run(capsys, "leave", site)[0] == 0
    assert read_wish(open_agent_folder(site)) is Wish.RUN


def test_folder_that_is_no_site_s_is_refused(capsys, tmp_path):
    code, _, err = run(capsys, "status", tmp_path)
    assert code == 2
    assert "fedtrain client init" in err

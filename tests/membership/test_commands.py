"""`fedtrain federation`: what it prints and asks, and that what is wrong is one line."""

import io
import json
import shutil
import time

import pytest

from fedtrain import cli
from fedtrain.membership.federation import load_federation
from fedtrain.membership.kits import install_kit, load_kit
from fedtrain.membership.requests import compute_fingerprint, create_request
from fedtrain.membership.summary import format_end
from tests.membership.members import ADDRESS, DAY, NOW, Federation


@pytest.fixture
def federation(tmp_path):
    return Federation(tmp_path, now=None)


@pytest.fixture
def call(capsys, monkeypatch):
    """Return a function that runs `fedtrain federation ...`: (exit code, stdout, stderr)."""

    def run(*arguments, answer=""):
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        code = cli.main(["federation", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def request_file(federation):
    create_request(federation.path / "ward", "ward", "site")
    return federation.path / "ward" / "request.bin"


def get_version(federation):
    return load_federation(federation.root).membership.version


def test_new_makes_a_root_and_shows_its_fingerprint(call, tmp_path):
    folder = tmp_path / "root"
    code, out, err = call("new", folder, "--name", "heart", "--coordinator", ADDRESS)
    assert (code, out) == (0, f"{folder}\n")
    shown = json.loads(call("show", folder, "--json")[1])
    assert shown["root_fingerprint"] in err
    assert shown["coordinator"] == ADDRESS


@pytest.mark.parametrize("answer", ["yes\n", "y\n", "YES\n"])
def test_approve_asks_shows_the_fingerprint_and_writes_a_kit(
    call, federation, request_file, answer
):
    code, out, err = call("approve", federation.root, request_file, answer=answer)
    request = create_request(request_file.parent, "ward", "site")
    kit = federation.root / "kits" / "ward.kit"
    assert (code, out) == (0, f"{kit}\n")
    assert "site ward joins (heart)" in err
    assert compute_fingerprint(request) in err
    assert install_kit(request_file.parent, load_kit(kit)) == load_federation(federation.root)


@pytest.mark.parametrize("answer", ["", "no\n", "yess\n"])
def test_approve_without_a_yes_changes_nothing(call, federation, request_file, answer):
    code, out, err = call("approve", federation.root, request_file, answer=answer)
    assert (code, out, get_version(federation)) == (2, "", 1)
    assert "nothing was changed; a script adds --yes" in err
    assert not (federation.root / "kits").exists()


def test_approve_with_yes_does_not_ask_and_says_what_goes_to_whom(call, federation, request_file):
    kit = federation.path / "handed.kit"
    code, out, err = call("approve", federation.root, request_file, "--yes", "--out", kit)
    assert (code, out) == (0, f"{kit}\n")
    assert "[yes/no]" not in err
    assert f"hand {kit} to ward: fedtrain client join handed.kit" in err
    assert f"hand {federation.root / 'membership.bin'} (version 2) to the coordinator" in err


def test_approval_of_the_coordinator_hands_it_one_file(call, federation):
    create_request(federation.path / "co", "co", "coordinator", ADDRESS)
    code, _, err = call("approve", federation.root, federation.path / "co" / "request.bin", "--yes")
    assert code == 0
    assert "fedtrain server join co.kit" in err
    assert "server install" not in err


def test_approval_again_changes_no_membership_and_says_so(call, federation, request_file):
    call("approve", federation.root, request_file, "--yes")
    _, _, err = call("approve", federation.root, request_file, "--yes")
    assert "gets a new certificate for the same keys" in err
    assert "server install" not in err
    assert get_version(federation) == 2


def test_approve_compares_a_fingerprint_that_it_is_given(call, federation, request_file):
    wrong = "0000 " * 9 + "0000"
    code, _, err = call("approve", federation.root, request_file, "--yes", "--fingerprint", wrong)
    assert (code, get_version(federation)) == (7, 1)
    assert "exchanged on the way" in err
    right = compute_fingerprint(create_request(request_file.parent, "ward", "site"))
    code, _, _ = call("approve", federation.root, request_file, "--yes", "--fingerprint", right)
    assert (code, get_version(federation)) == (0, 2)


def test_approve_of_another_identity_needs_replace(call, federation, request_file):
    call("approve", federation.root, request_file, "--yes")
    shutil.rmtree(request_file.parent)
    create_request(request_file.parent, "ward", "site")
    assert call("approve", federation.root, request_file, "--yes")[0] == 7
    code, _, err = call("approve", federation.root, request_file, "--yes", "--replace")
    assert code == 0
    assert "REPLACES ward, site with identity" in err


def test_revoke_asks_and_strikes_off(call, federation, request_file):
    call("approve", federation.root, request_file, "--yes")
    assert call("revoke", federation.root, "ward", answer="no\n")[0] == 2
    assert get_version(federation) == 2
    code, out, err = call("revoke", federation.root, "ward", answer="yes\n")
    assert (code, out) == (0, f"{federation.root / 'membership.bin'}\n")
    assert "site ward is struck off heart" in err
    assert load_federation(federation.root).membership.entries == ()


def test_show_lists_members_with_fingerprint_and_end(call, federation, request_file):
    call("approve", federation.root, request_file, "--yes")
    code, out, _ = call("show", federation.root)
    shown = json.loads(call("show", federation.root, "--json")[1])["members"][0]
    line = next(line for line in out.splitlines() if " ward " in line)
    assert code == 0
    assert line.split() == [
        *("ward", "site", *shown["fingerprint"].split()),
        format_end(shown["certificate_end"], now=0),
    ]


def test_show_of_a_member_s_folder_knows_the_end_of_its_own_certificate(call, federation):
    federation.join("alpha")
    folder = federation.join("ward")
    members = json.loads(call("show", folder, "--json")[1])["members"]
    assert members[0]["certificate_end"] is None
    assert members[1]["certificate_end"] > time.time() + 396 * DAY
    assert members[1]["public_key"][:16] in call("show", folder)[1]


@pytest.mark.parametrize(
    ("left", "text"),
    [
        (None, "-"),
        (-1, "2027-01-15 ENDED"),
        (0, "2027-01-15 in 0 d"),
        (29 * DAY, "2027-02-13 in 29 d"),
        (30 * DAY, "2027-02-14"),
    ],
)
def test_end_of_a_certificate_is_marked_when_it_is_near(left, text):
    assert format_end(None if left is None else NOW + left, now=NOW) == text


def test_renew_makes_a_request_that_the_root_takes(call, federation):
    folder = federation.join("ward")
    code, out, err = call("renew", folder)
    assert (code, out) == (0, f"{folder / 'request.bin'}\n")
    assert "fedtrain client join KIT" in err
    assert "renews its TLS key" in call("approve", federation.root, out.strip(), "--yes")[2]
    install_kit(folder, load_kit(federation.root / "kits" / "ward.kit"))


def test_renew_of_a_coordinator_keeps_or_changes_its_address(call, federation):
    folder = federation.join("co", "coordinator")
    assert call("renew", folder)[0] == 0
    assert create_request(folder, "co", "coordinator", ADDRESS).claim.address == (ADDRESS,)
    call("renew", folder, "--address", "new.example.org:1")
    _, _, err = call("approve", federation.root, folder / "request.bin", "--yes")
    assert f"address      new.example.org:1 (so far {ADDRESS})" in err
    assert load_federation(federation.root).membership.coordinator == "new.example.org:1"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "WHAT"),
        (["new", "x"], 2, "--name"),
        (["new", "x", "--name", "a b", "--coordinator", ADDRESS], 2, "choose another"),
        (["new", "x", "--name", "a", "--coordinator", "here"], 2, "HOST:PORT"),
        (["new", "ROOT", "--name", "a", "--coordinator", ADDRESS], 2, "exists and is kept"),
        (["approve", "nowhere", "r", "--yes"], 5, "root.key cannot be read"),
        (["approve", "ROOT", "nothing", "--yes"], 5, "nothing cannot be read"),
        (["approve", "ROOT", "ROOT/root.pub", "--yes"], 7, "root.pub: no request to join"),
        (["revoke", "ROOT", "ward", "--yes"], 7, "members: nobody yet"),
        (["show", "nowhere"], 5, "nowhere is no folder"),
        (["renew", "nowhere"], 5, "nowhere is no folder"),
    ],
    ids=str,
)
def test_what_is_wrong_is_one_line(call, federation, monkeypatch, arguments, code, words):
    monkeypatch.chdir(federation.path)
    found, out, error = call(*(part.replace("ROOT", "root") for part in arguments))
    assert (found, out, error.count("\n")) == (code, "", 1)
    assert words in error


@pytest.mark.parametrize("name", ["new", "approve", "revoke", "show", "renew"])
def test_help_prints_an_example(call, name):
    code, text, _ = call(name, "--help")
    assert code == 0
    assert f"Example:\n  fedtrain federation {name} " in text


def test_kit_that_cannot_be_written_is_one_line_and_may_be_asked_for_again(
    call, federation, request_file
):
    out = federation.path / "missing" / "kit"
    code, _, err = call("approve", federation.root, request_file, "--yes", "--out", out)
    assert code == 5
    assert err.splitlines()[-1].startswith(f"fedtrain: {out} cannot be written")
    assert call("approve", federation.root, request_file, "--yes")[0] == 0

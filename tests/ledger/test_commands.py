"""`fedtrain ledger`: what it prints, and that what is wrong is one line."""

import json
import sys

import pytest

from fedtrain import cli
from fedtrain.ledger.account import Account
from fedtrain.ledger.faults import BudgetError
from fedtrain.ledger.site_ledger import SiteLedger
from fedtrain.ledger.summary import build_budget, render_budget, render_entries
from fedtrain.ledger.verify import read_entries
from fedtrain.privacy.ledger import LedgerEntry
from fedtrain.report.tables import make_console
from fedtrain.secagg.files import create_identity
from tests.ledger.books import BUDGET, IDENTITY, create, fill, make_terms, release


@pytest.fixture
def folder(tmp_path):
    return fill(tmp_path).folder


@pytest.fixture
def call(capsys):
    """Return a function that runs `fedtrain ledger ...`: (exit code, stdout, stderr)."""

    def run(*arguments):
        code = cli.main(["ledger", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_show_lists_every_entry_and_the_head(folder, call):
    code, text, _ = call("show", folder)
    head = read_entries(folder)[-1].to_head()
    assert code == 0
    assert f"{head.digest}:7" in text
    assert text.count("committed") == 4


def test_show_as_json_holds_the_entries(folder, call):
    tree = json.loads(call("show", folder, "--json")[1])
    assert [entry["body"]["kind"] for entry in tree["entries"]][-1] == "closed"
    assert tree["head"]["index"] == 7


def test_show_of_a_long_ledger_says_what_it_leaves_out(tmp_path, capsys):
    entries = read_entries(fill(tmp_path).folder)
    make_console(sys.stdout).print(render_entries(entries, 3))
    assert "last 3 of 8 entries" in capsys.readouterr().out


def test_budget_amounts_add_up(folder, call):
    tree = json.loads(call("budget", folder, "--json")[1])
    amounts = tree["divergence"]
    parts = amounts["committed"] + amounts["reserved"] + amounts["left"]
    assert parts == pytest.approx(amounts["total"])
    assert tree["epsilon"]["total"] == 8.0


def test_tight_epsilon_is_below_what_the_filter_proves(folder):
    tree = build_budget(Account.replay(read_entries(folder)))
    assert 0 < tree["tight_epsilon_committed"] < tree["epsilon"]["committed"]


def test_budget_of_a_new_ledger_is_whole(tmp_path):
    tree = build_budget(Account.replay(read_entries(create(tmp_path).folder)))
    assert tree["divergence"]["left"] == tree["divergence"]["total"]
    assert tree["epsilon"]["committed"] == tree["tight_epsilon_committed"] == 0


def draw_bar(ledger, capsys):
    make_console(sys.stdout).print(render_budget(Account.replay(read_entries(ledger.folder))))
    return next(part for part in capsys.readouterr().out.split() if part.startswith("["))


def test_bar_shows_the_smallest_commit(tmp_path, capsys):
    ledger = create(tmp_path)
    ledger.reserve(make_terms(rounds=13))
    assert draw_bar(ledger, capsys).startswith("[+")
    release(ledger, 1)
    assert draw_bar(ledger, capsys).startswith("[#")


def test_budget_draws_a_picture(folder, call, tmp_path):
    picture = tmp_path / "budget.png"
    assert call("budget", folder, "--picture", picture)[0] == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_verify_of_an_unbroken_ledger_exits_with_zero(folder, call):
    code, text, _ = call("verify", folder)
    assert code == 0
    assert text.count(" ok ") == 3


def test_verify_of_a_shortened_ledger_fails_against_its_head(folder, call):
    head = read_entries(folder)[-1].to_head()
    path = folder / "ledger.jsonl"
    assert call("verify", folder, "--head", f"{head.digest}:{head.index}")[0] == 0
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:5]))
    code, _, error = call("verify", folder, "--head", f"{head.digest}:{head.index}")
    assert (code, error.count("\n")) == (8, 1)
    assert "cut off" in error


def test_verify_takes_heads_from_a_run_directory(folder, call, tmp_path):
    head = read_entries(folder)[-1].to_head()
    entry = LedgerEntry(
        site="ward", round=1, mechanism="none", site_head=head.digest, site_index=head.index
    )
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "ledger.jsonl").write_text(f"{entry.to_json()}\n")
    code, text, _ = call("verify", folder, "--run", tmp_path / "study", "--site", "ward")
    assert code == 0
    assert "heads noted elsewhere" in text


def test_verify_as_json_holds_the_checks(folder, call):
    tree = json.loads(call("verify", folder, "--json")[1])
    assert [check["failed"] for check in tree["checks"]] == [False] * 3


def test_close_gives_rounds_back(tmp_path, call):
    key = tmp_path / "identity.pem"
    identity = create_identity(key)
    ledger = SiteLedger.create(tmp_path / "book", "heart", budget=BUDGET, identity=identity)
    ledger.reserve(make_terms(rounds=2))
    code, text, _ = call("close", tmp_path / "book", "run", "--identity", key)
    assert (code, text) == (0, "closed run: 2 rounds given back\n")
    assert ledger.compute_balance().reserved == 0


def test_close_with_another_key_is_refused(folder, call, tmp_path):
    create_identity(tmp_path / "identity.pem")
    code, _, error = call("close", folder, "other", "--identity", tmp_path / "identity.pem")
    assert code == 5
    assert "use the site's own key" in error


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["show", "nothing"], 5, "no ledger can be opened there"),
        (["budget", "FOLDER", "--picture", "x.jpg"], 2, "ends in .png"),
        (["verify", "FOLDER", "--head", "00"], 2, "not 64 hex digits"),
        (["verify", "FOLDER", "--run", "study"], 2, "go together"),
        (["verify", "FOLDER", "--run", "study", "--site", "a"], 8, "cannot be read"),
        (["close", "FOLDER", "run"], 2, "--identity"),
        (["close", "FOLDER", "run", "--identity", "none.pem"], 5, "none.pem"),
        ([], 2, "WHAT"),
    ],
    ids=str,
)
def test_what_is_wrong_is_one_line(folder, call, arguments, code, words):
    found, _, error = call(*(folder if part == "FOLDER" else part for part in arguments))
    assert found == code
    assert error.count("\n") == 1
    assert words in error


@pytest.mark.parametrize("name", ["show", "budget", "verify", "close"])
def test_help_prints(call, name):
    code, text, _ = call(name, "--help")
    assert code == 0
    assert text.startswith(f"usage: fedtrain ledger {name}")


def test_close_of_an_unknown_run_is_refused(folder):
    with pytest.raises(BudgetError, match="has no reservation"):
        SiteLedger(folder, IDENTITY).close("third")

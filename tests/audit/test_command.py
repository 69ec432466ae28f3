"""The command `fedtrain verify`, as a user types it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fedtrain import cli

Capture = pytest.CaptureFixture[str]


def test_verify_prints_what_holds(simulated: Callable[[str], Path], capsys: Capture) -> None:
    assert cli.main(["verify", str(simulated("protocol"))]) == 0
    output = capsys.readouterr()
    for part in ("signatures of secure sums", "48", "show damage, not forgery"):
        assert part in output.out
    assert output.err == ""


@pytest.mark.parametrize("kind", ["arithmetic", "off"])
def test_verify_says_that_a_mode_signs_nothing(simulated, kind: str, capsys: Capture) -> None:
    assert cli.main(["verify", str(simulated(kind))]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"no transcript to check: mode {kind} signs nothing" in text
    assert "epsilons by round ok" in text


def test_verify_names_the_first_thing_that_does_not_hold(copy_run, capsys: Capture) -> None:
    path = copy_run()
    ledger = path / "ledger.jsonl"
    ledger.write_text(ledger.read_text().replace('"round":2', '"round":1'))
    assert cli.main(["verify", str(path)]) == 8
    output = capsys.readouterr()
    assert "DOES NOT HOLD" in output.out
    assert output.err.startswith("fedtrain: ledger against transcript: ledger.jsonl: ")
    assert output.err.count("\n") == 1


def test_verify_against_a_roster_that_is_not_there_is_refused(simulated, capsys: Capture) -> None:
    path = str(simulated("protocol"))
    assert cli.main(["verify", path, "--roster", "nowhere.json"]) == 8
    assert "nowhere.json: cannot be read" in capsys.readouterr().err


def test_verify_of_what_is_no_run_is_one_line(tmp_path: Path, capsys: Capture) -> None:
    assert cli.main(["verify", str(tmp_path)]) == 3
    assert "not a run directory" in capsys.readouterr().err

"""The commands that make scenarios and read runs, as a user types them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fedtrain.cli import main
from fedtrain.config import load_config, parse_config
from fedtrain.scenarios import list_scenarios

MakeRun = Callable[..., Path]
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.toml").write_text("# Base.\n[training]\nlocal_epochs = 1\n")
    return tmp_path


def expect_one_line(argv: list[str], code: int, capsys: Capture) -> str:
    assert main(argv) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    return output.err


def test_init_writes_a_scenario_once(folder: Path, capsys: Capture) -> None:
    assert main(["init", "study", "--from", "base.toml"]) == 0
    assert capsys.readouterr().out == "study.toml\n"
    assert load_config(folder / "study.toml").run.name == "study"
    before = (folder / "study.toml").read_text()
    assert "exists" in expect_one_line(["init", "study", "--from", "base.toml"], 2, capsys)
    assert (folder / "study.toml").read_text() == before


def test_init_refuses_what_it_cannot_do(capsys: Capture) -> None:
    assert "no such file" in expect_one_line(["init", "a", "--from", "nix"], 2, capsys)
    assert "run.name" in expect_one_line(["init", "a b", "--from", "base.toml"], 2, capsys)
    message = expect_one_line(["init", "none/a", "--from", "base.toml"], 2, capsys)
    assert "none/a.toml: cannot be written (No such file or directory)" in message


def test_init_lists_what_ships(capsys: Capture) -> None:
    assert main(["init", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line[0] != " "] == list(list_scenarios())
    assert max(map(len, lines)) <= 100


def test_config_prints_the_resolved_config_with_its_digest(capsys: Capture) -> None:
    assert main(["config", "base.toml", "--set", "federation.rounds=3"]) == 0
    text = capsys.readouterr().out
    assert parse_config(text).federation.rounds == 3
    assert text.splitlines()[-1].startswith('# digest = "')


def test_config_of_a_resolved_config_is_itself(folder: Path, capsys: Capture) -> None:
    assert main(["config", "base.toml"]) == 0
    first = capsys.readouterr().out
    (folder / "resolved.toml").write_text(first)
    assert main(["config", "resolved.toml"]) == 0
    assert capsys.readouterr().out == first


def test_config_refuses_an_unknown_key(capsys: Capture) -> None:
    message = expect_one_line(["config", "base.toml", "--set", "run.sed=3"], 2, capsys)
    assert "did you mean run.seed?" in message


def test_schema_is_json_with_every_section(capsys: Capture) -> None:
    assert main(["config", "--schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert {"run", "data", "federation", "privacy"} <= set(schema["properties"])


def test_runs_lists_newest_first(make_run: MakeRun, capsys: Capture) -> None:
    make_run("early", state={"started": "2026-01-01T00:00:00+00:00"})
    make_run("late", state={"started": "2026-05-01T00:00:00+00:00"})
    assert main(["runs"]) == 0
    text = capsys.readouterr().out
    assert 0 < text.index("late") < text.index("early")


def test_runs_goes_on_past_a_damaged_run(make_run: MakeRun, capsys: Capture) -> None:
    make_run("good")
    (make_run("bad") / "state.json").write_text("{")
    assert main(["runs"]) == 0
    output = capsys.readouterr()
    assert "good" in output.out
    assert output.err.startswith("left out: runs/bad/state.json: damaged")


def test_runs_of_nothing_is_one_line(folder: Path, capsys: Capture) -> None:
    assert "no such folder" in expect_one_line(["runs"], 3, capsys)
    assert "no runs in it" in expect_one_line(["runs", str(folder)], 3, capsys)


def test_show_prints_summary_rounds_and_sites(make_run: MakeRun, capsys: Capture) -> None:
    make_run("a", private=True)
    assert main(["show", "a"]) == 0
    text = capsys.readouterr().out
    for part in ("epsilon = 7.95", "By round, 20 of 30 shown", "By site"):
        assert part in text
    assert main(["show", "a", "--all"]) == 0
    assert "of 30 shown" not in capsys.readouterr().out


def test_show_json_is_one_object(make_run: MakeRun, capsys: Capture) -> None:
    make_run("a")
    assert main(["show", "a", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"] == "a"


def test_show_of_what_is_no_run_is_one_line(capsys: Capture) -> None:
    assert "nix: no such run" in expect_one_line(["show", "nix"], 3, capsys)


def test_compare_prints_tables_and_draws(make_run: MakeRun, folder: Path, capsys: Capture) -> None:
    make_run("a")
    make_run("b", private=True)
    assert main(["compare", "a", "b", "--out", "two.png"]) == 0
    text = capsys.readouterr().out
    assert "privacy.unit" in text
    assert text.splitlines()[-1] == "two.png"
    assert (folder / "two.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("out", ["two.txt", "none/two.png"])
def test_compare_refuses_a_picture_it_cannot_write(
    make_run: MakeRun, out: str, capsys: Capture
) -> None:
    make_run("a")
    assert main(["compare", "a", "a", "--out", out]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"fedtrain: --out {out}: ")
    assert error.count("\n") == 1

"""Seconds and bytes of a run, round by round."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fedtrain import cli
from fedtrain.report.costs import render_costs
from fedtrain.report.run import load_run
from fedtrain.report.tables import make_console

MakeRun = Callable[..., Path]


def render(path: Path, **options: None) -> str:
    file = io.StringIO()
    make_console(file).print(render_costs(load_run(path), **options))
    return file.getvalue()


def test_cost_of_a_round_is_shared_by_its_cohort(make_run: MakeRun) -> None:
    path = make_run(rounds=1)
    line = {"round": 1, "seconds": 2.5, "bytes_up": 1024, "bytes_down": 3072, "cohort": 4}
    (path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    text = " ".join(render(path).split())
    assert "1 2.5 s 3.0 KiB 1.0 KiB 1.0 KiB 2.5 s 4.0 KiB" in text
    assert "1 round: 2.5 s, 3.0 KiB to the sites, 1.0 KiB back" in text


def test_costs_add_up_over_all_rounds_when_some_are_shown(make_run: MakeRun) -> None:
    text = render(make_run(rounds=200))
    assert "20 of 200 rounds shown" in text
    assert "200 rounds: 50 s, 19.1 MiB to the sites, 19.1 MiB back" in text


def test_every_round_is_shown_where_asked(make_run: MakeRun) -> None:
    text = render(make_run(rounds=50), limit=None)
    assert "shown" not in text
    assert len(text.splitlines()) > 50


def test_round_without_figures_costs_nothing(make_run: MakeRun) -> None:
    path = make_run(rounds=1)
    (path / "metrics.jsonl").write_text('{"round": 1}\n')
    assert "1 round: 0 s, 0 B to the sites, 0 B back" in render(path)


def test_run_without_rounds_has_no_costs(make_run: MakeRun) -> None:
    assert "0 rounds: 0 s" in render(make_run(rounds=0))


def test_show_prints_costs(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", str(make_run()), "--cost"]) == 0
    text = capsys.readouterr().out
    assert "so far" in text
    assert "test accuracy" not in text

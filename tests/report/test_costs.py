"""What a run cost, by round and by site."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedtrain import cli
from fedtrain.costs import RoundCost, SiteCost, append_cost
from fedtrain.energy import Power
from fedtrain.report.costs import render_costs
from fedtrain.report.run import load_run
from fedtrain.report.tables import make_console

MakeRun = Callable[..., Path]


def render(path: Path, **options: Any) -> str:
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


def flatten(path: Path, **options: Any) -> str:
    return " ".join(render(path, **options).split())


def make_costly_run(make_run: MakeRun, *, gpu: float = 0.0, joules: float | None = None) -> Path:
    """Return a run of two rounds that cost the coordinator 1 s, site a 2 s and site b 1 s each."""
    path = make_run(rounds=2)
    for number in (1, 2):
        sites = {"a": SiteCost(2.0, gpu, 3 * 1024, 1024), "b": SiteCost(1.0, 0.0, 1024, 1024)}
        append_cost(path, RoundCost(number, sites, 1.0, joules))
    return path


def test_costs_by_site_add_up_over_the_rounds(make_run: MakeRun) -> None:
    text = flatten(make_costly_run(make_run))
    assert "a 2 4 s 2.0 KiB 6.0 KiB b 2 2 s 2.0 KiB 2.0 KiB coordinator - 2 s" in text
    assert "8 s of processors" in text
    assert "no guarantee covers them" in text


def test_counted_energy_is_told_from_assumed_energy(make_run: MakeRun) -> None:
    path = make_costly_run(make_run, joules=8.0)
    counted, assumed = flatten(path), flatten(path, power=Power(10.0))
    assert "counted it (RAPL)" in counted
    assert "16 J" in counted
    assert "assumed, not measured: 10 W for each processor core" in assumed
    assert "80 J" in assumed


def test_energy_of_a_gpu_without_watts_is_said_to_be_left_out(make_run: MakeRun) -> None:
    path = make_costly_run(make_run, gpu=3.0)
    assert "that of the GPU is left out" in flatten(path, power=Power(10.0))
    text = flatten(path, power=Power(10.0, gpu_watts=100.0))
    assert "left out" not in text
    assert "6 s of GPUs, 680 J" in text


def test_deployed_sites_have_bytes_and_no_seconds(make_run: MakeRun) -> None:
    path = make_run(rounds=1)
    append_cost(path, RoundCost(1, {"a": SiteCost(bytes_up=1024)}))
    text = flatten(path)
    assert "CPU" not in text
    assert "a 1 0 B 1.0 KiB" in text
    assert "depends on its records" not in text


def test_of_many_sites_those_that_cost_most_are_shown(make_run: MakeRun) -> None:
    path = make_run(rounds=1)
    sites = {f"site-{i:02}": SiteCost(float(i)) for i in range(40)}
    append_cost(path, RoundCost(1, sites, 1.0))
    text = flatten(path)
    assert "the 30 of 40 that cost most" in text
    assert "site-09" not in text
    assert "site-09" in flatten(path, limit=None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--watts", "5"], "--watts is read with --cost"),
        (["--cost", "--gpu-watts", "5"], "--gpu-watts is read with --watts"),
        (["--cost", "--watts", "0"], "must be above 0"),
    ],
)
def test_options_of_power_are_not_silently_ignored(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert cli.main(["show", str(make_run()), *options]) == 2
    assert message in capsys.readouterr().err

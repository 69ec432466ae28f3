"""A run's summary: facts, results, rounds, sites."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import RenderableType

from fedtrain.config import build_config, to_tree
from fedtrain.report.run import load_run
from fedtrain.report.summary import (
    build_summary,
    has_site_results,
    render_rounds,
    render_sites,
    render_summary,
)
from fedtrain.report.tables import make_console
from fedtrain.resolution import resolve

MakeRun = Callable[..., Path]
OFF = {"secure_aggregation": {"mode": "off"}}


def render(what: RenderableType) -> str:
    file = io.StringIO()
    make_console(file).print(what)
    return file.getvalue()


def test_summary_says_what_ran_and_how_it_ended(make_run: MakeRun) -> None:
    text = render(render_summary(load_run(make_run("study"))))
    for part in ("study", "finished after 30 of 30 rounds", "sklearn:digits", "mlp", "FedAvg"):
        assert part in text
    assert "test accuracy        0.9395" in text
    assert "round 28, best by validation loss" in text
    assert "No differential privacy" in text


def test_stopped_run_says_why_and_how_to_go_on(make_run: MakeRun) -> None:
    path = make_run(rounds=3, state={"status": "stopped", "reason": "interrupted"})
    text = render(render_summary(load_run(path)))
    assert "stopped after 3 of 30 rounds: interrupted" in text
    assert "to go on    fedtrain simulate --resume" in text


def test_run_without_rounds_still_prints(make_run: MakeRun) -> None:
    path = make_run(rounds=0, config=OFF)
    (path / "sites.json").unlink()
    run = load_run(path)
    text = render(render_summary(run)) + render(render_rounds(run)) + render(render_sites(run))
    assert "after 0 of 30 rounds" in text
    assert "no evaluation at the sites yet" in text


def test_rounds_are_thinned_with_ends_and_best(make_run: MakeRun) -> None:
    run = load_run(make_run(rounds=200))
    text = render(render_rounds(run))
    assert "of 200 shown" in text
    shown = [line.split()[0] for line in text.splitlines() if line[:7].strip().isdigit()]
    assert {"1", "200"} <= set(shown)
    assert "198 *" in text
    assert len(text.splitlines()) < 30
    assert len(render(render_rounds(run, limit=None)).splitlines()) > 200


def test_rounds_keep_every_column_within_80(make_run: MakeRun) -> None:
    text = render(render_rounds(load_run(make_run(private=True))))
    assert max(map(len, text.splitlines())) <= 80
    assert "9/10" in text


def test_many_sites_show_those_with_least_accuracy(make_run: MakeRun) -> None:
    run = load_run(make_run(sites=1000))
    text = render(render_sites(run))
    assert "the 30 of 1000 with least accuracy" in text
    assert "site-999" in text
    assert "site-0 " not in text


def test_many_sites_without_metrics_show_those_that_spent_most(make_run: MakeRun) -> None:
    path = make_run(config=OFF)
    sites = [{"site": f"s{i:02d}", "rounds": 1, "epsilon": float(i)} for i in range(40)]
    (path / "sites.json").write_text(json.dumps(sites))
    text = render(render_sites(load_run(path)))
    assert "the 30 of 40 with most epsilon" in " ".join(text.split())
    assert "s39" in text
    assert "s09" not in text


def test_sites_with_names_alone_have_no_results(make_run: MakeRun) -> None:
    path = make_run(config=OFF)
    assert has_site_results(load_run(path))
    (path / "sites.json").write_text('[{"site": "north", "rounds": 3, "epsilon": null}]')
    assert not has_site_results(load_run(path))


@pytest.mark.parametrize(
    ("training", "text"),
    [
        ({}, "1 local epoch a round"),
        ({"local_epochs": 2}, "2 local epochs a round"),
        ({"local_steps": 1}, "1 step a round"),
    ],
)
def test_duration_is_singular_for_one(make_run: MakeRun, training: dict, text: str) -> None:
    config = to_tree(resolve(build_config({"training": training})))
    assert text in render(render_summary(load_run(make_run(config=config))))


def test_site_without_metrics_is_shown(make_run: MakeRun) -> None:
    path = make_run()
    (path / "sites.json").write_text('[{"site": "north", "rounds": 0, "epsilon": null}]')
    assert "north" in render(render_sites(load_run(path)))


def test_site_table_has_what_sites_wrote_down_themselves(make_run: MakeRun) -> None:
    text = render(render_sites(load_run(make_run())))
    assert "metrics as each site wrote them" in " ".join(text.split())
    assert "0.8990" in text
    plain = render(render_sites(load_run(make_run("b", config=OFF))))
    assert "wrote" not in plain
    assert "0.8990" in plain


def test_metrics_of_an_earlier_round_name_it(make_run: MakeRun) -> None:
    path = make_run()
    assert "tested" not in render(render_sites(load_run(path)))
    (path / "sites" / "000001.json").write_text(
        '{"site": "site-1", "round": 7, "test_accuracy": 0.5}'
    )
    assert "round 7" in render(render_sites(load_run(path)))


def test_void_rounds_are_marked_and_say_why(make_run: MakeRun) -> None:
    path = make_run(rounds=2, config={"federation": {"min_survivors": 3}})
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"round": 1, "cohort": 5, "survivors": 0, "threshold": 4, "void": "3 left"}\n')
        file.write('{"round": 2, "cohort": 5, "survivors": 2}\n')
    text = render(render_rounds(load_run(path)))
    for part in (
        "1 *!",
        "2 !",
        "0/5 (4)",
        "! 2 void rounds",
        "1: 3 left",
        "2: 2 survivors are below",
    ):
        assert part in text


def test_many_void_rounds_are_cut_short(make_run: MakeRun) -> None:
    path = make_run(rounds=25)
    lines = [{"round": i, "cohort": 5, "survivors": 0} for i in range(1, 26)]
    (path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    run = load_run(path)
    assert "and 15 more" in render(render_rounds(run))
    assert "25: no usable update" in render(render_rounds(run, limit=None))


def test_summary_as_json_is_strict_and_whole(make_run: MakeRun) -> None:
    path = make_run(private=True, rounds=2)
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"round": 2, "train_loss": NaN, "epsilon": 2.5, "delta": 1e-5}\n')
    summary = json.loads(json.dumps(build_summary(load_run(path)), allow_nan=False))
    assert summary["metrics"][-1]["train_loss"] is None
    assert summary["state"]["status"] == "finished"
    assert len(summary["sites"]) == 4
    assert summary["privacy"]["epsilon"] == 2.5
    assert summary["privacy"]["neighbouring_relation"] == "add_remove"


def test_own_models_stand_beside_the_global_one(make_run: MakeRun) -> None:
    run = load_run(make_run("a"))
    assert "own accuracy" not in render(render_sites(run))
    sites = [{"site": "x", "rounds": 1, "test_accuracy": 0.5, "own_accuracy": 0.75}]
    text = render(render_sites(replace(run, sites=sites)))
    assert "own accuracy" in text
    assert "0.7500" in text


def test_groups_are_listed_with_the_results(make_run: MakeRun) -> None:
    run = load_run(make_run("a"))
    last = run.metrics[-1] | {"group:f_accuracy": 0.9, "group_worst_accuracy": 0.4}
    text = render(render_summary(replace(run, metrics=[*run.metrics[:-1], last])))
    assert "group:f accuracy" in text
    assert "group worst accuracy" in text

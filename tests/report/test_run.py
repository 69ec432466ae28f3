"""Reading run directories: finished, going, killed, damaged."""

import fcntl
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fedtrain.errors import RunDirectoryError
from fedtrain.report.run import find_run, find_runs, load_run

MakeRun = Callable[..., Path]


def test_finished_run_reads_whole(make_run: MakeRun) -> None:
    run = load_run(make_run("a", rounds=30, sites=4))
    assert (run.name, run.status, run.rounds_done, run.rounds_wanted) == ("a", "finished", 30, 30)
    assert [line["round"] for line in run.metrics] == list(range(1, 31))
    assert len(run.sites) == 4
    assert run.find_utility() == "test_accuracy"


@pytest.mark.parametrize("cut", [1, 5, 40, 100])
def test_torn_last_line_is_ignored(make_run: MakeRun, cut: int) -> None:
    path = make_run("a", rounds=5, state={"round": 4})
    metrics = path / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes()[: -cut - 1])
    assert [line["round"] for line in load_run(path).metrics] == [1, 2, 3, 4]


def test_lines_past_the_last_commit_do_not_count(make_run: MakeRun) -> None:
    assert len(load_run(make_run("a", rounds=5, state={"round": 3})).metrics) == 3


def test_round_that_was_run_again_counts_as_it_ended(make_run: MakeRun) -> None:
    path = make_run("a", rounds=2)
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"round": 2, "test_accuracy": 0.5}\n')
    assert load_run(path).get_last("test_accuracy") == 0.5


def test_run_before_its_first_commit_reads_empty(make_run: MakeRun) -> None:
    path = make_run("a", config={"secure_aggregation": {"mode": "off"}})
    for name in ("metrics.jsonl", "state.json", "sites.json"):
        (path / name).unlink()
    run = load_run(path)
    assert (run.status, run.rounds_done, run.rounds_wanted) == ("unknown", 0, 30)
    assert (run.metrics, run.sites, run.find_utility()) == ([], [], None)


def test_running_run_is_killed_when_nobody_holds_its_lock(make_run: MakeRun) -> None:
    path = make_run("a", state={"status": "running"})
    assert load_run(path).status == "running"  # no lock file: cannot be told
    (path / "checkpoint").mkdir()
    with (path / "checkpoint" / "lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert load_run(path).status == "running"
    assert load_run(path).status == "killed"


def test_values_that_are_not_finite_are_missing(make_run: MakeRun) -> None:
    path = make_run("a", rounds=1, state={"round": 3})
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"round": 2, "train_loss": NaN}\n{"round": 3, "train_loss": null}\n')
    run = load_run(path)
    assert [number for number, _ in run.get_series("train_loss")] == [1]
    assert run.get_at("train_loss", 2) is None


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metrics.jsonl", '{"round": 1}\nxx\n{"round": 3}\n', "line 2 is damaged"),
        ("metrics.jsonl", '[]\n{"round": 3}\n', "line 1 is damaged"),
        ("state.json", "{", "damaged"),
        ("state.json", "[]", "not a dict"),
        ("sites.json", "{}", "not a list"),
        ("sites/000002.json", "{}", "no site or round"),
        ("sites/000002.json", "[]", "not a dict"),
        ("roster.json", "{", "damaged"),
        ("config.toml", "= 3", "damaged"),
    ],
)
def test_damage_is_one_line(make_run: MakeRun, name: str, text: str, message: str) -> None:
    path = make_run("a")
    (path / name).write_text(text)
    with pytest.raises(RunDirectoryError, match=message) as caught:
        load_run(path)
    assert "\n" not in str(caught.value)


def test_unknown_keys_of_a_config_do_not_hinder(make_run: MakeRun) -> None:
    path = make_run("a")
    text = (path / "config.toml").read_text()
    (path / "config.toml").write_text(f"{text}\n[another]\nkey = 1\n")
    assert load_run(path).config["another"] == {"key": 1}


def test_missing_and_foreign_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="no such run"):
        load_run(tmp_path / "none")
    with pytest.raises(RunDirectoryError, match="not a run directory"):
        load_run(tmp_path)


def test_run_is_found_by_name_in_runs(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run("a")
    monkeypatch.chdir(tmp_path)
    assert find_run("a").path == find_run("runs/a").path == Path("runs/a")


def test_runs_are_found_in_children_and_grandchildren(make_run: MakeRun, tmp_path: Path) -> None:
    paths = [make_run("a"), make_run("b")]
    assert find_runs(tmp_path / "runs") == find_runs(tmp_path) == paths
    assert find_runs(paths[0]) == paths[:1]


def test_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="no runs in it"):
        find_runs(tmp_path)
    with pytest.raises(RunDirectoryError, match="no such folder"):
        find_runs(tmp_path / "none")


def test_sites_own_metrics_join_what_the_coordinator_knows(make_run: MakeRun) -> None:
    path = make_run("a", rounds=3)
    site = load_run(path).sites[1]
    assert (site["site"], site["rounds"], site["test_round"]) == ("site-1", 3, 3)
    (path / "sites.json").unlink()
    assert [site["site"] for site in load_run(path).sites][:2] == ["site-0", "site-1"]


def test_metrics_may_hold_any_unknown_metric(make_run: MakeRun) -> None:
    path = make_run("a", rounds=1)
    (path / "metrics.jsonl").write_text(json.dumps({"round": 1, "perplexity": 9.5}) + "\n")
    assert load_run(path).get_last("perplexity") == 9.5

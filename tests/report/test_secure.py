"""What a report says of secure aggregation, in each of its modes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fedtrain.report.run import load_run
from fedtrain.report.secure import build_aggregation, describe_aggregation, find_voids

MakeRun = Callable[..., Path]


@pytest.mark.parametrize(
    ("mode", "parts"),
    [
        ("off", ["off: the coordinator sees every site's update"]),
        ("arithmetic", ["without keys: hides nothing", "(cohort of 10, threshold 7)"]),
        ("protocol", ["the sum over the survivors or nothing (cohort of 10, threshold 7)"]),
    ],
)
def test_each_mode_says_what_the_coordinator_sees(
    make_run: MakeRun, mode: str, parts: list[str]
) -> None:
    text = describe_aggregation(load_run(make_run(config={"secure_aggregation": {"mode": mode}})))
    assert all(part in text for part in parts)
    assert ("secret to nobody" in text) == (mode == "protocol")


def test_identities_that_are_not_simulated_are_not_called_so(make_run: MakeRun) -> None:
    path = make_run()
    (path / "roster.json").write_text('{"simulated": false}')
    assert "secret to nobody" not in describe_aggregation(load_run(path))


def test_cohorts_of_several_sizes_are_a_range(make_run: MakeRun) -> None:
    path = make_run(rounds=1, state={"round": 2})
    with (path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"round": 2, "cohort": 4, "survivors": 3, "threshold": 3}) + "\n")
    assert "(cohort of 4 to 10, threshold 3 to 7)" in describe_aggregation(load_run(path))


def test_void_rounds_have_their_reason(make_run: MakeRun) -> None:
    path = make_run(rounds=3)
    lines = [
        {"round": 1, "cohort": 4, "survivors": 0, "threshold": 3, "void": "2 are too few"},
        {"round": 2, "cohort": 0, "survivors": 0},
        {"round": 3, "cohort": 4, "survivors": 4, "threshold": 3},
    ]
    (path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    run = load_run(path)
    assert find_voids(run) == {1: "2 are too few", 2: "no site was drawn"}
    assert build_aggregation(run)["void_rounds"][0] == {"round": 1, "reason": "2 are too few"}
    assert build_aggregation(run)["simulated_identities"] is True

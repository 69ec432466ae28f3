"""The sentence on privacy says what holds, for whom, and what does not."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fedtrain.report.privacy import describe_privacy
from fedtrain.report.run import load_run

MakeRun = Callable[..., Path]


@pytest.mark.parametrize(
    ("mode", "part"),
    [
        ("off", "No differential privacy: every site's update is released as it is."),
        ("arithmetic", "released as it is, encoded for the sum but not masked."),
        ("protocol", "What sums, over all rounds together, tell of a record or a site is not"),
    ],
)
def test_no_privacy_is_said_plainly(make_run: MakeRun, mode: str, part: str) -> None:
    text = describe_privacy(load_run(make_run(config={"secure_aggregation": {"mode": mode}})))
    assert text.startswith("No differential privacy: ")
    assert part in text


def test_run_from_before_secure_aggregation_released_updates(make_run: MakeRun) -> None:
    run = load_run(make_run())
    del run.config["secure_aggregation"]
    assert "every site's update is released" in describe_privacy(run)


def test_guarantee_names_all_it_rests_on(make_run: MakeRun) -> None:
    run = load_run(make_run(private=True, state={"accountant": "pld"}))
    text = describe_privacy(run)
    for part in (
        "for one record of a site: epsilon = 7.95 at delta = 1e-05 for rounds 1 to 30",
        "the maximum over the sites (relation add_remove, accountant pld)",
        "adding or removing one record",
        "planned to cost at most 8",
        "Not covered: the metrics that sites report",
    ):
        assert part in text


def test_guarantee_of_an_unfinished_run_is_for_its_rounds(make_run: MakeRun) -> None:
    text = describe_privacy(load_run(make_run(private=True, rounds=4)))
    assert "epsilon = 2.90 at delta = 1e-05 for rounds 1 to 4," in text


def test_other_relation_is_spelt_out(make_run: MakeRun) -> None:
    config = {"privacy": {"unit": "record", "noise_multiplier": 1.0}}
    config["privacy"]["neighbouring_relation"] = "replace_one"
    text = describe_privacy(load_run(make_run(private=True, config=config)))
    assert "relation replace_one" in text
    assert "replacing one record" in text
    assert "planned" not in text


def test_epsilon_that_is_not_finite_is_no_guarantee(make_run: MakeRun) -> None:
    path = make_run(private=True, rounds=1, state={"round": 2})
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"round": 2, "delta": 1e-5}\n')
    assert describe_privacy(load_run(path)).startswith("No guarantee: the spent epsilon is not")


def test_private_run_before_its_first_round_has_spent_nothing(make_run: MakeRun) -> None:
    assert "nothing is spent" in describe_privacy(load_run(make_run(private=True, rounds=0)))

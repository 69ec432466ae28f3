"""The privacy calculator, as a user types it."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from fedtrain.cli import main
from fedtrain.privacy.accounting import compute_cost
from fedtrain.privacy.events import PoissonSampledGaussian
from fedtrain.report.privacy_commands import EPILOG

Capture = pytest.CaptureFixture[str]
EPSILON = "epsilon --noise-multiplier 2 --sample-rate 0.1 --steps 40"
NOISE = "noise --target-epsilon 3 --sample-rate 0.0625 --steps 480"
STEPS = "steps --target-epsilon 3 --noise-multiplier 2 --sample-rate 0.1"
COMPARE = "compare --noise-multiplier 2 --sample-rate 0.1 --steps 40"
SITES = "noise --target-epsilon 8 --steps 50 --unit site --sites 10"
EXAMPLES = [line for line in EPILOG.splitlines() if line.startswith("  fedtrain")]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ask(text: str, capsys: Capture) -> str:
    assert main(["privacy", *text.split()]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    return output.out


def ask_json(text: str, capsys: Capture) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(ask(f"{text} --json", capsys))
    return tree


def refuse(text: str, capsys: Capture) -> str:
    assert main(["privacy", *text.split()]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    return output.err


@pytest.mark.parametrize("relation", ["add_remove", "replace_one"])
def test_epsilon_is_the_accountant_s_with_all_that_it_rests_on(
    relation: Any, capsys: Capture
) -> None:
    found = ask_json(f"{EPSILON} --relation {relation} --unit person --delta 1e-6", capsys)
    event = PoissonSampledGaussian(2.0, 0.1, 40)
    cost = compute_cost([event], delta=1e-6, neighbouring_relation=relation)
    assert (found["epsilon"], found["delta"]) == (cost.epsilon, 1e-6)
    assert (found["unit"], found["neighbouring_relation"]) == ("person", relation)
    assert (found["accountant"], found["discretisation"]) == ("pld", cost.discretisation)
    assert found["error"].startswith("at most 0.5 % above")


def test_epsilon_in_words_names_everything(capsys: Capture) -> None:
    text = ask(EPSILON, capsys)
    assert text.splitlines()[0].startswith("epsilon ")
    for part in ("delta = 1e-05", "one record", "add_remove", "pld (", "grid 0.001", "40 steps"):
        assert part in text
    assert "An attacker who accuses 1 % of non-members wrongly finds at most" in text


def test_noise_is_the_smallest_for_the_target(capsys: Capture) -> None:
    found = ask_json(NOISE, capsys)
    assert found["noise_multiplier"] == pytest.approx(2.0917, rel=1e-3)
    assert 0.995 * 3 <= found["epsilon"] <= 3


def test_steps_are_the_most_for_the_target(capsys: Capture) -> None:
    steps = ask_json(STEPS, capsys)["steps"]
    event = PoissonSampledGaussian(2.0, 0.1, steps + 1)
    assert compute_cost([event], delta=1e-5).epsilon > 3


def test_ten_sites_drown_in_noise(capsys: Capture) -> None:
    assert ask_json(SITES, capsys)["noise_on_mean"] == pytest.approx(0.42, abs=0.005)
    text = ask(SITES, capsys)
    assert "0.425 of max_update_norm on every coordinate, with 10 sites" in text
    assert "as soon as the model has 6 parameters" in " ".join(text.split())


def test_compare_has_all_accountants_and_relations(capsys: Capture) -> None:
    answers = ask_json(COMPARE, capsys)["answers"]
    assert len({(answer["method"], answer["neighbouring_relation"]) for answer in answers}) == 8
    text = ask(COMPARE, capsys)
    assert "The accountants agree" in text
    assert "prv did not answer for replace_one" in text
    assert "gdp" not in text


@pytest.mark.parametrize("question", [EPSILON, COMPARE])
def test_no_noise_is_infinite_and_said_so(question: str, capsys: Capture) -> None:
    question = question.replace("--noise-multiplier 2", "--noise-multiplier 0")
    text = " ".join(ask(question, capsys).split())
    assert "infinite" in text
    assert "noise_multiplier = 0 is too little for any guarantee" in text
    found = ask_json(question, capsys)
    first = found["answers"][0] if "answers" in found else found
    assert (first["epsilon"], first["is_infinite"]) == (None, True)


@pytest.mark.parametrize("question", [EPSILON, NOISE, STEPS, COMPARE])
def test_delta_above_one_over_the_records_is_warned_of(question: str, capsys: Capture) -> None:
    warned = ask_json(f"{question} --delta 1e-3 --records 2000", capsys)["warnings"]
    assert len(warned) == 1
    assert "delta = 0.001 is above 1 / records = 0.0005" in warned[0]
    assert ask_json(f"{question} --delta 1e-4 --records 2000", capsys)["warnings"] == []


@pytest.mark.parametrize("rate", ["0", "1"])
@pytest.mark.parametrize("steps", ["1", "1e6"])
def test_edges_are_answered(rate: str, steps: str, capsys: Capture) -> None:
    question = f"epsilon --noise-multiplier 1000 --sample-rate {rate} --steps {steps}"
    found = ask_json(question, capsys)
    assert found["steps"] == float(steps)
    assert (found["epsilon"] == 0) == (rate == "0")
    assert found["epsilon"] < (0.01 if steps == "1" else 5)


def test_epsilon_beyond_the_grid_says_which_accountant_answered(capsys: Capture) -> None:
    question = "epsilon --noise-multiplier 0.1 --sample-rate 0.1 --steps 100"
    found = ask_json(question, capsys)
    assert found["accountant"] == "rdp"
    assert "could not answer" in found["warnings"][0]


def test_target_below_one_step_says_so(capsys: Capture) -> None:
    found = ask_json(f"{STEPS} --target-epsilon 0.001", capsys)
    assert found["steps"] == 0
    assert "Not even one step is within target_epsilon = 0.001" in found["warnings"][0]


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (f"{EPSILON} --sample-rate 1.5", "sample_rate = 1.5 is not between 0 and 1"),
        (f"{EPSILON} --noise-multiplier -1", "noise_multiplier = -1 is not a finite number"),
        (f"{EPSILON} --noise-multiplier nan", "noise_multiplier = nan is not a finite number"),
        (f"{EPSILON} --steps -3", "steps = -3 is not between 0 and 2^53"),
        (f"{EPSILON} --steps 1.5", "1.5 is not a whole number"),
        (f"{EPSILON} --steps many", "invalid"),
        (f"{EPSILON} --steps inf", "whole number"),
        (f"{EPSILON} --delta 0", "delta = 0 is not between 0 and 1"),
        (f"{EPSILON} --records 0", "--records = 0 is below 1"),
        (f"{EPSILON} --sites 5", "--sites 5 with --unit record"),
        (f"{EPSILON} --unit site --sites 0", "--sites 0 with --unit site"),
        (f"{EPSILON} --picture a.pdf", "give a name that ends in .png"),
        (f"{EPSILON} --picture none/a.png", "--picture none/a.png: cannot be written"),
        (f"{EPSILON} --steps 0 --picture a.png", "leave --picture out"),
        ("epsilon --noise-multiplier 1 --steps 5", "--sample-rate is missing"),
        ("epsilon --sample-rate 0.1 --steps 5", "--noise-multiplier"),
        (f"{NOISE} --target-epsilon 0", "target_epsilon = 0 is not above 0"),
        (f"{NOISE} --target-epsilon 1e-9", "target_epsilon = 1e-09 is unreachable"),
        (f"{STEPS} --sample-rate 0", "is not reached by 9e+15 steps"),
        (f"{COMPARE} --relation add_remove", "unknown argument '--relation'"),
        ("epsilon --accountant gdp", "the following arguments are required"),
        ("gdp", "invalid choice: 'gdp'"),
        ("", "required: WHAT"),
    ],
)
def test_wrong_question_is_one_line(question: str, message: str, capsys: Capture) -> None:
    assert message in refuse(question, capsys)


@pytest.mark.parametrize(
    "question",
    [EPSILON, SITES, *(pytest.param(q, marks=pytest.mark.slow) for q in (NOISE, STEPS, COMPARE))],
)
def test_picture_is_written_and_named_last(question: str, folder: Path, capsys: Capture) -> None:
    text = ask(f"{question} --picture a.png", capsys)
    assert text.splitlines()[-1] == "a.png"
    assert (folder / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_of_the_help_runs(example: str, capsys: Capture) -> None:
    assert main(shlex.split(example)[1:]) == 0
    assert "epsilon" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["epsilon", "noise", "steps", "compare"])
def test_help_has_an_example_and_the_default_delta(kind: str, capsys: Capture) -> None:
    assert main(["privacy", kind, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Example:\n  fedtrain privacy {kind}" in text
    assert "(default: 1e-05)" in " ".join(text.split())


def test_help_says_why_gdp_and_shuffling_are_missing(capsys: Capture) -> None:
    assert main(["privacy", "--help"]) == 0
    assert main(["privacy", "compare", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "shuffled rather than sampled are not covered" in text
    assert '"gdp" is not offered: it is the central limit' in text

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from fedtrain.privacy.cross_check import cross_check, find_disagreements
from fedtrain.privacy.events import PoissonSampledGaussian

VECTORS = Path(__file__).parents[1] / "vectors" / "accounting.json"
CASES = json.loads(VECTORS.read_text())["cases"]
EVENT = PoissonSampledGaussian(2.0, 0.05, 50)
SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def answers():
    return cross_check([EVENT], delta=1e-5)


def test_every_accountant_answers_for_itself(answers):
    assert [answer.method for answer in answers] == ["pld", "prv", "rdp", "opacus_rdp"]
    assert all(answer.method == answer.accountant and not answer.reason for answer in answers)
    assert all(answer.error for answer in answers)


@SLOW
@pytest.mark.parametrize("relation", ["add_remove", "replace_one"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_accountants_agree_on_every_vector(case, relation):
    event = PoissonSampledGaussian(case["noise_multiplier"], case["sample_rate"], case["steps"])
    found = cross_check([event], delta=case["delta"], neighbouring_relation=relation)
    assert find_disagreements(found) == []
    assert found[0].epsilon == pytest.approx(
        case["epsilon"][f"pld_dp_accounting_{relation}"], abs=2e-4
    )


@pytest.mark.parametrize(
    "event",
    [
        PoissonSampledGaussian(1.0, 0.0, 10),
        PoissonSampledGaussian(1.0, 1.0, 1),
        PoissonSampledGaussian(1.0, 1e-7, 100),
        PoissonSampledGaussian(0.0, 0.1, 10),
        PoissonSampledGaussian(0.1, 0.01, 1000),
        pytest.param(PoissonSampledGaussian(50.0, 0.01, 10**6), marks=SLOW),
        pytest.param(PoissonSampledGaussian(1.0, 0.001, 10**6), marks=SLOW),
    ],
)
def test_accountants_agree_at_the_edges(event):
    assert find_disagreements(cross_check([event], delta=1e-5)) == []


def test_replace_one_has_two_answers_and_two_reasons():
    found = cross_check([EVENT], delta=1e-5, neighbouring_relation="replace_one")
    assert [answer.accountant for answer in found] == ["pld", "pld", "rdp", "rdp"]
    assert [bool(answer.reason) for answer in found] == [False, True, False, True]
    assert found[1].epsilon == found[0].epsilon


def test_epsilon_beyond_the_grid_says_that_rdp_answered():
    pld = cross_check([PoissonSampledGaussian(0.1, 0.01, 1000)], delta=1e-5)[0]
    assert (pld.accountant, pld.reason[:8]) == ("rdp", "its grid")
    assert math.isfinite(pld.epsilon)


@pytest.mark.parametrize(
    ("index", "factor"), [(0, 1.05), (0, 0.5), (1, 0.95), (1, 1.2), (2, 0.5), (2, 1.2), (3, 0.9)]
)
def test_wrong_answer_is_found(answers, index, factor):
    wrong = replace(answers[index], epsilon=answers[index].epsilon * factor)
    changed = [*answers[:index], wrong, *answers[index + 1 :]]
    assert answers[0].epsilon > 0.3
    assert find_disagreements(changed)

"""The project's reference vectors: 20 cases, four libraries, published values where there are."""

import json
import math
from pathlib import Path

import pytest

from fedtrain.privacy.accounting import compute_cost
from fedtrain.privacy.events import PoissonSampledGaussian
from fedtrain.privacy.opacus_accounting import compute_prv_epsilon

VECTORS = Path(__file__).parents[1] / "vectors" / "accounting.json"
CASES = json.loads(VECTORS.read_text())["cases"]
RELATIONS = ["add_remove", "replace_one"]


def compute_case(case, **options):
    event = PoissonSampledGaussian(case["noise_multiplier"], case["sample_rate"], case["steps"])
    return compute_cost([event], delta=case["delta"], **options)


def test_vectors_are_all_there():
    assert len(CASES) == 20


@pytest.mark.parametrize(
    "relation", ["add_remove", pytest.param("replace_one", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_pld_at_fine_grid_matches_the_vector(case, relation):
    cost = compute_case(case, neighbouring_relation=relation, discretisation=1e-4)
    assert cost.accountant == "pld"
    assert cost.epsilon == pytest.approx(case["epsilon"][f"pld_dp_accounting_{relation}"], abs=2e-4)


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_pld_at_default_grid_is_above_the_vector_by_at_most_the_stated_error(case, relation):
    cost = compute_case(case, neighbouring_relation=relation)
    reference = case["epsilon"][f"pld_dp_accounting_{relation}"]
    assert cost.epsilon >= reference - 1e-6
    assert cost.epsilon <= reference + 0.0035
    assert cost.epsilon <= reference * 1.0015


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_rdp_matches_the_vector(case):
    cost = compute_case(case, accountant="rdp")
    assert cost.accountant == "rdp"
    assert cost.epsilon == pytest.approx(case["epsilon"]["rdp_opacus"], rel=1e-3)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_accountants_are_ordered(case):
    pld = compute_case(case, discretisation=1e-4).epsilon
    event = PoissonSampledGaussian(case["noise_multiplier"], case["sample_rate"], case["steps"])
    answer = compute_prv_epsilon([event], delta=case["delta"])
    prv = answer.epsilon
    assert answer.accountant == "prv"
    assert prv == pytest.approx(case["epsilon"]["prv_opacus"], abs=1e-3)
    assert pld <= prv <= pld + 0.02 <= compute_case(case, accountant="rdp").epsilon + 0.02


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_rdp_is_above_pld(case, relation):
    rdp = compute_case(case, neighbouring_relation=relation, accountant="rdp").epsilon
    assert rdp >= case["epsilon"][f"pld_dp_accounting_{relation}"]
    assert math.isfinite(rdp)


@pytest.mark.parametrize("case", [c for c in CASES if c["epsilon"]["analytic_gaussian"]])
def test_unsampled_gaussian_matches_its_closed_form(case):
    exact = case["epsilon"]["analytic_gaussian"]
    assert exact - 1e-9 <= compute_case(case).epsilon <= exact + 1e-5

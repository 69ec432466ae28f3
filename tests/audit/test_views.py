"""What a coordinator sees is what the code of a real run lets it see."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from fedtrain.audit.inversion import compute_gradient
from fedtrain.audit.views import (
    SETTINGS,
    compute_raw,
    make_reference_plan,
    make_views,
    run_secure_sum,
)
from fedtrain.config import SecureAggregationSection
from tests.audit.steps import build_mlp, load_batches, view


@pytest.fixture(scope="module")
def seen():
    return view(build_mlp(), load_batches(4, 4))


def test_sum_is_the_cohorts_mean(seen):
    batches, model = load_batches(4, 4), build_mlp()
    gradients = [
        compute_gradient(model, torch.from_numpy(b.features), torch.from_numpy(b.labels))
        for b in batches
    ]
    mean = torch.stack(gradients).mean(dim=0)
    torch.testing.assert_close(seen.gradients["sum"], mean, atol=1e-6, rtol=0)


def test_noise_is_the_plans(seen):
    plan = make_reference_plan(4)
    quiet = view(build_mlp(), load_batches(4, 4), plan=_scale(plan, 1e-9)).gradients["dp"]
    noise = (seen.gradients["dp"] - quiet) * plan.expected_batch_size
    assert kstest(noise.numpy(), "norm").pvalue > 1e-3


def test_masked_vector_is_uniform_and_the_bare_one_is_not():
    words = [np.arange(2000, dtype=np.uint32) for _ in range(3)]
    masked, total = run_secure_sum(words, SecureAggregationSection(), 1)
    np.testing.assert_array_equal(total, 3 * np.arange(2000))
    assert kstest(masked / 2**32, "uniform").pvalue > 1e-3
    assert kstest(words[0] / 2**32, "uniform").pvalue < 1e-9


def test_views_of_known_gradients_are_the_same(seen):
    model, batches = build_mlp(), load_batches(4, 4)
    section, raw = SecureAggregationSection(), [compute_raw(model, batch) for batch in batches]
    again = make_views(model, batches, plan=None, section=section, seed=0, raw=raw).gradients
    assert {
        name: torch.equal(again[name], seen.gradients[name]) for name in again
    } == dict.fromkeys(SETTINGS, True)


def test_model_is_left_as_it_is(seen):
    model = build_mlp()
    before = [p.detach().clone() for p in model.parameters()]
    view(model, load_batches(3, 2))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def _scale(plan, factor):
    return type(plan)(
        noise_multiplier=plan.noise_multiplier * factor,
        sample_rate=1.0,
        steps=1,
        max_grad_norm=plan.max_grad_norm,
        expected_batch_size=plan.expected_batch_size,
    )

"""A bare step tells a site's label shares; a masked one and the sum do not."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedtrain.audit.leakage import (
    Knowledge,
    _project,
    compute_clip_scale,
    compute_distance,
    count_shares,
    estimate_label_shares,
    predict_shares,
)
from fedtrain.audit.views import make_reference_plan
from fedtrain.data.shards import Split
from fedtrain.errors import ConfigError
from tests.audit.steps import CLASSES, build_mlp, load_batches, view


@pytest.fixture(scope="module")
def setting():
    """Return model, sites of two labels each, and what an attacker knows."""
    model, own = build_mlp(), load_batches(5, 250)
    sites = [_keep(batch, (site, site + 4)) for site, batch in enumerate(own[:4])]
    features, labels = torch.from_numpy(own[4].features), torch.from_numpy(own[4].labels)
    return model, sites, Knowledge(features, labels)


def _keep(batch, labels):
    chosen = np.isin(batch.labels, labels)
    return Split(batch.features[chosen], batch.labels[chosen])


def measure(setting, name, *, scale=1.0):
    model, sites, knowledge = setting
    seen = view(model, sites, plan=make_reference_plan(len(sites[0]))).gradients[name]
    predicted = predict_shares(model, knowledge)
    found = estimate_label_shares(model, seen, predicted, scale=scale)
    return compute_distance(found, count_shares(sites[0].labels, CLASSES))


def test_bare_step_tells_what_mask_and_sum_hide(setting):
    guess = compute_distance(np.full(10, 0.1), count_shares(setting[1][0].labels, CLASSES))
    assert measure(setting, "raw") < 0.05
    assert measure(setting, "masked") > 0.9 * guess
    assert measure(setting, "sum") > 0.6


def test_noise_for_records_leaves_label_shares_readable(setting):
    """What record-level privacy does not promise: the report says so."""
    model, _, knowledge = setting
    scale = compute_clip_scale(model, knowledge, max_grad_norm=1.0)
    assert scale > 1
    assert measure(setting, "dp", scale=scale) < 0.35


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=20))
def test_estimate_is_a_distribution(values):
    shares = _project(np.array(values))
    assert shares.min() >= 0
    assert shares.sum() == pytest.approx(1)


def test_distribution_is_its_own_projection():
    shares = np.array([0.2, 0.5, 0.3])
    np.testing.assert_allclose(_project(shares), shares)


def test_model_without_a_last_linear_layer_is_refused():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False))
    with pytest.raises(ConfigError, match="ends in"):
        estimate_label_shares(model, torch.zeros(640), np.full(10, 0.1))

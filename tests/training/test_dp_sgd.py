from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import nn
from torch.nn import functional

from fedtrain.config import ModelSection
from fedtrain.errors import ConfigError
from fedtrain.models.registry import build_model
from fedtrain.plan import RecordPlan
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.training.dp_sgd import PrivateGradients


def make_plan(noise=0.0, clip=0.5, batch=10.0) -> RecordPlan:
    return RecordPlan(
        noise_multiplier=noise,
        sample_rate=0.1,
        steps=1,
        max_grad_norm=clip,
        expected_batch_size=batch,
    )


def make_model(name="mlp", shape=(1, 8, 8)) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    return build_model(ModelSection(name=name), input_shape=shape, classes=3, generator=generator)


def make_batch(n, shape=(1, 8, 8), seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (n,), generator=generator)
    return torch.randn(n, *shape, generator=generator), labels


def compute(gradients: PrivateGradients, x, y, seed=0) -> torch.Tensor:
    parts, _ = gradients.compute(x, y, noise=SecureGenerator.from_seed(seed, "noise"))
    return torch.cat([part.reshape(-1) for part in parts])


@pytest.mark.filterwarnings("ignore:Full backward hook")  # Opacus' own step, not ours
@pytest.mark.parametrize("name", ["logistic", "mlp", "cnn_small", "cnn_groupnorm"])
def test_clipped_sum_equals_opacus_own_optimiser(name):
    x, y = make_batch(17)
    ours = compute(PrivateGradients(make_model(name), make_plan()), x, y)
    module = GradSampleModule(make_model(name), loss_reduction="sum")
    optimiser = DPOptimizer(
        torch.optim.SGD(module.parameters(), lr=1.0),
        noise_multiplier=0.0,
        max_grad_norm=0.5,
        expected_batch_size=10,
        loss_reduction="mean",
    )
    functional.cross_entropy(module(x), y, reduction="sum").backward()
    optimiser.pre_step()
    theirs = torch.cat([p.grad.reshape(-1) for p in module.parameters()])
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 12), seed=st.integers(0, 1000), clip=st.sampled_from([1e-3, 0.5, 100.0]))
def test_removing_one_record_changes_the_sum_by_at_most_the_clip(n, seed, clip):
    x, y = make_batch(n, seed=seed)
    gradients = PrivateGradients(make_model(), make_plan(clip=clip, batch=1.0))
    difference = compute(gradients, x, y) - compute(gradients, x[1:], y[1:])
    assert difference.norm() <= clip * (1 + 1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 3e38, 0.0])
def test_a_record_of_any_value_changes_the_sum_by_at_most_the_clip(value):
    x, y = make_batch(6)
    x[0] = value
    gradients = PrivateGradients(make_model(), make_plan(clip=0.5, batch=1.0))
    with_it, without = compute(gradients, x, y), compute(gradients, x[1:], y[1:])
    assert torch.isfinite(with_it).all()
    assert (with_it - without).norm() <= 0.5 * (1 + 1e-5)


def test_divisor_is_the_plan_s_whatever_the_batch_holds():
    x, y = make_batch(8)
    one = compute(PrivateGradients(make_model(), make_plan(batch=1.0)), x, y)
    ten = compute(PrivateGradients(make_model(), make_plan(batch=10.0)), x, y)
    torch.testing.assert_close(one / 10, ten)


@pytest.mark.parametrize("n", [0, 1, 40])
def test_noise_has_the_plan_s_deviation_whatever_the_batch_size(n):
    x, y = make_batch(n)
    plan = make_plan(noise=2.0, clip=0.5, batch=10.0)
    model = make_model("cnn_groupnorm")
    noisy = compute(PrivateGradients(model, plan), x, y)
    quiet = compute(PrivateGradients(make_model("cnn_groupnorm"), make_plan()), x, y)
    draws = (noisy - quiet) / (2.0 * 0.5 / 10.0)
    assert draws.std().item() == pytest.approx(1.0, abs=4 / np.sqrt(2 * len(draws)))


def test_noise_of_two_steps_is_not_the_same():
    gradients = PrivateGradients(make_model(), make_plan(noise=1.0))
    noise = SecureGenerator.from_seed(0, "noise")
    x, y = make_batch(0)
    first, second = (gradients.compute(x, y, noise=noise)[0][0] for _ in range(2))
    assert not torch.equal(first, second)


def test_batch_norm_is_refused_with_its_name_and_a_cure():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    with pytest.raises(ConfigError, match=r"(?i)batchnorm.*GroupNorm"):
        PrivateGradients(model, make_plan())


def test_layer_used_twice_adds_up_before_clipping():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = nn.Linear(64, 64), nn.Linear(64, 3)

        def forward(self, x):
            x = x.flatten(1)
            return self.head(torch.tanh(self.layer(torch.tanh(self.layer(x)))))

    torch.manual_seed(0)
    model = Twice()
    x, y = make_batch(5)
    summed = functional.cross_entropy(model(x), y, reduction="sum")
    expected = torch.cat([g.reshape(-1) for g in torch.autograd.grad(summed, model.parameters())])
    ours = compute(PrivateGradients(model, make_plan(clip=1e6, batch=1.0)), x, y)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


class Remembering(nn.Module):
    """Keeps the largest value that it has seen, as an observer of quantisation does."""

    def __init__(self, above=-1.0):
        super().__init__()
        self.layer, self.above = nn.Linear(6, 3), above
        self.register_buffer("largest", torch.zeros(()))

    def forward(self, x):
        if len(x) and float(x.max()) > self.above:
            self.largest.copy_(torch.maximum(self.largest, x.detach().max()))
        return self.layer(x)


@pytest.mark.parametrize(("above", "refused"), [(-1.0, True), (2.0, False)])
def test_buffer_that_follows_records_is_refused_before_it_leaves(above, refused):
    gradients = PrivateGradients(Remembering(above), make_plan())
    features, labels = torch.rand(4, 6), torch.zeros(4, dtype=torch.int64)
    outcome = pytest.raises(ConfigError, match="'largest'") if refused else nullcontext()
    with outcome:
        gradients.compute(features, labels, noise=SecureGenerator.from_seed(0))

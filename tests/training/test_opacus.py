"""The clipped sum equals that of Opacus' hooks, for every model that ships and more."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus import GradSampleModule
from opacus.layers import DPGRU, DPLSTM
from opacus.optimizers import DPOptimizer
from torch import nn
from torch.nn import functional

from fedtrain.config import ModelSection
from fedtrain.models.registry import build_model
from fedtrain.training.dp_sgd import make_book_keeper
from tests.training.small_models import CLASSES, SEQUENCES, STEPS, TOKENS, WIDTH, Recurrent

# Opacus' hooks on a first layer whose input needs no gradient.
pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook")
# Of the others, tests/models/test_architectures.py compares with one pass a record.
IMAGE_MODELS = ("logistic", "mlp", "cnn", "cnn_groupnorm", "cnn_small", "resnet")
COUNTS, SEEDS, CLIPS = st.integers(0, 9), st.integers(0, 10_000), st.sampled_from([1e-2, 0.3, 1e6])


class SplitAttention(nn.Module):
    """Attention from two linear layers, which Opacus can follow.

    Its own `DPMultiheadAttention` (1.6.0) mixes up heads and positions where `batch_first` is set.
    """

    def __init__(self, width, heads, *, batch_first):
        super().__init__()
        self.heads = heads
        self.in_proj, self.out_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, query, *_, need_weights):
        parts = self.in_proj(query).chunk(3, 2)
        parts = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = functional.scaled_dot_product_attention(*parts)
        return self.out_proj(mixed.transpose(1, 2).flatten(2)), None


class Transformer(nn.Module):
    """A block of attention whose class is a parameter."""

    def __init__(self, attention):
        super().__init__()
        self.tokens, self.norm = nn.Embedding(TOKENS, WIDTH), nn.LayerNorm(WIDTH)
        self.attention = attention(WIDTH, 2, batch_first=True)
        self.linear, self.output = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, x):
        hidden = self.tokens(x)
        hidden = hidden + self.attention(*[self.norm(hidden)] * 3, need_weights=False)[0]
        return self.output(torch.relu(self.linear(hidden)).mean(1))


def sum_with_hooks(model, x, y, clip):
    """Return Opacus' clipped sums by parameter name."""
    module = GradSampleModule(model, loss_reduction="sum")
    optimiser = DPOptimizer(
        torch.optim.SGD(module.parameters(), lr=1.0),
        noise_multiplier=0.0,
        max_grad_norm=clip,
        expected_batch_size=1,
        loss_reduction="sum",
    )
    functional.cross_entropy(module(x), y, reduction="sum").backward()
    optimiser.pre_step()
    return {name: p.grad for name, p in model.named_parameters()}


def sum_with_ours(model, x, y, clip):
    sums, _ = make_book_keeper(model).compute_clipped_sum(x, y, max_grad_norm=clip)
    return dict(zip((name for name, _ in model.named_parameters()), sums, strict=True))


def is_close(ours, theirs):
    distance = torch.stack([(ours[name] - theirs[name]).norm() for name in ours]).norm()
    return distance <= 1e-5 * torch.stack([t.norm() for t in theirs.values()]).norm() + 1e-9


def make_images(n, shape, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (n,), generator=generator)
    return torch.randn(n, *shape, generator=generator), labels


@pytest.mark.parametrize("name", IMAGE_MODELS)
@settings(max_examples=6, deadline=None)
@given(n=COUNTS, seed=SEEDS, clip=CLIPS, size=st.sampled_from([(1, 6), (2, 8), (3, 14)]))
def test_shipped_model_has_the_clipped_sum_of_hooks(name, n, seed, clip, size):
    shape = (*size, size[1] + 1)
    x, y = make_images(n, shape, seed)
    ours, theirs = (
        build_model(
            ModelSection(name=name, hidden=(20, 9)) if name == "mlp" else ModelSection(name=name),
            input_shape=shape,
            classes=CLASSES,
            generator=torch.Generator().manual_seed(seed),
        )
        for _ in range(2)
    )
    found = sum_with_ours(ours, x, y, clip)
    if n:
        assert is_close(found, sum_with_hooks(theirs, x, y, clip))
    else:
        assert not any(part.any() for part in found.values())


@pytest.mark.parametrize(("kind", "theirs"), [(nn.LSTM, DPLSTM), (nn.GRU, DPGRU)])
@settings(max_examples=6, deadline=None)
@given(n=COUNTS.filter(bool), seed=SEEDS, clip=CLIPS)
def test_recurrent_model_has_the_clipped_sum_of_hooks(kind, theirs, n, seed, clip):
    torch.manual_seed(seed)
    ours, other = Recurrent(kind), Recurrent(theirs)
    other.layer.load_state_dict(ours.layer.state_dict())
    other.output.load_state_dict(ours.output.state_dict())
    x, y = make_images(n, SEQUENCES, seed)
    assert is_close(sum_with_ours(ours, x, y, clip), sum_with_hooks(other, x, y, clip))


@settings(max_examples=6, deadline=None)
@given(n=COUNTS.filter(bool), seed=SEEDS, clip=CLIPS)
def test_transformer_has_the_clipped_sum_of_hooks(n, seed, clip):
    torch.manual_seed(seed)
    ours, theirs = Transformer(nn.MultiheadAttention), Transformer(SplitAttention)
    state = {name.replace("in_proj_", "in_proj."): v for name, v in ours.state_dict().items()}
    theirs.load_state_dict(state)
    x, y = torch.randint(0, TOKENS, (n, STEPS)), torch.arange(n) % CLASSES
    found = sum_with_hooks(theirs, x, y, clip).items()
    found = {name.replace("in_proj.", "in_proj_"): values for name, values in found}
    assert is_close(sum_with_ours(ours, x, y, clip), found)


def test_layer_without_a_rule_falls_back_to_opacus_alone():
    class Scale(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.factor = nn.Parameter(torch.ones(width))

        def forward(self, x):
            return x * self.factor

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 8), Scale(8), nn.Unflatten(1, (2, 4)), nn.InstanceNorm1d(2, affine=True),
        nn.Flatten(), nn.Linear(8, CLASSES),
    )  # fmt: skip
    x, y = make_images(4, (6,), 0)
    ours = sum_with_ours(model, x, y, 0.3)
    assert is_close(ours, sum_with_hooks(model, x, y, 0.3))

"""The clipped sum of one backward pass, against each record's gradient made alone."""

import gc
import subprocess
import sys
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from fedtrain.errors import ConfigError
from fedtrain.training.book_keeping import SMALL_PASS, BookKeeper
from fedtrain.training.dp_sgd import make_book_keeper

from .small_models import CLASSES, MODELS, WIDTH, make_batch, make_model

CLIPS = st.sampled_from([1e-3, 0.3, 1e9])
SEEDS = st.integers(0, 10_000)


def flatten(tensors):
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def make_samples(model, x, y):
    """Return each record's gradient by autograd, one record at a time, (B, d)."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.stack(
        [
            flatten(
                torch.autograd.grad(
                    functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1]), parameters
                )
            )
            for i in range(len(y))
        ]
    )


def clip_and_sum(samples, clip):
    return ((clip / (samples.norm(dim=1) + 1e-6)).clamp(max=1)[:, None] * samples).sum(0)


def compute(model, x, y, clip=0.3, owners=None):
    keeper = make_book_keeper(model)
    return flatten(keeper.compute_clipped_sum(x, y, max_grad_norm=clip, owners=owners)[0])


def is_close(ours, theirs, rtol=1e-5):
    return (ours - theirs).norm() <= rtol * theirs.norm() + 1e-9


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=6, deadline=None)
@given(n=st.integers(1, 6), seed=SEEDS, clip=CLIPS)
def test_clipped_sum_is_that_of_records_alone(name, n, seed, clip):
    model = make_model(name, seed)
    x, y = make_batch(name, n, seed)
    assert is_close(compute(model, x, y, clip), clip_and_sum(make_samples(model, x, y), clip))


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=6, deadline=None)
@given(owners=st.lists(st.integers(0, 4), min_size=1, max_size=7), seed=SEEDS, clip=CLIPS)
def test_clipped_sum_of_persons_is_that_of_their_means(name, owners, seed, clip):
    model, owners = make_model(name, seed), torch.tensor(owners)
    x, y = make_batch(name, len(owners), seed)
    samples = make_samples(model, x, y)
    means = torch.stack([samples[owners == owner].mean(0) for owner in owners.unique()])
    # Records of a person that cancel are clipped a little more: see CANCELLATION.
    ours = compute(model, x, y, clip, owners)
    assert is_close(ours, clip_and_sum(means, clip), rtol=1e-3)
    assert is_close(compute(model, x, y, 1e9, owners), means.sum(0))


@pytest.mark.parametrize("name", ["transformer", "lstm", "conv2d", "linear_in_place"])
def test_person_with_copies_of_a_record_adds_as_much_as_with_one(name):
    model = make_model(name)
    x, y = make_batch(name, 3)
    once = compute(model, x, y, owners=torch.tensor([0, 1, 2]))
    copies = torch.tensor([0, 1, 1, 1, 2, 1])
    assert is_close(compute(model, x[copies], y[copies], owners=copies), once)


@pytest.mark.parametrize("name", MODELS)
def test_empty_batch_gives_zeros(name):
    x, y = make_batch(name, 0)
    assert not compute(make_model(name), x, y).any()
    assert not compute(make_model(name), x, y, owners=torch.zeros(0, dtype=torch.int64)).any()


@pytest.mark.parametrize("owned", [False, True])
def test_several_passes_give_the_sum_of_one(owned, monkeypatch):
    monkeypatch.setattr("fedtrain.training.book_keeping.PASS_FLOATS", 1)
    x, y = make_batch("transformer", 3 * SMALL_PASS + 5)
    owners = torch.arange(len(y)) % 7 if owned else None
    several = compute(make_model("transformer"), x, y, owners=owners)
    monkeypatch.setattr("fedtrain.training.book_keeping.PASS_FLOATS", 2**40)
    assert is_close(several, compute(make_model("transformer"), x, y, owners=owners))


def test_size_of_a_pass_does_not_follow_from_earlier_batches():
    model, other = make_model("conv2d"), make_model("conv2d")
    x, y = make_batch("conv2d", 80)
    first = compute(model, x, y)
    keeper = make_book_keeper(other)
    keeper.compute_clipped_sum(x[:50], y[:50], max_grad_norm=0.3)
    torch.manual_seed(3)
    again, _ = keeper.compute_clipped_sum(x, y, max_grad_norm=0.3)
    assert torch.equal(first, flatten(again))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
@pytest.mark.parametrize("name", ["lstm", "gru", "conv1d", "conv2d", "linear_in_place"])
def test_record_that_is_not_finite_adds_nothing(name, value):
    model = make_model(name)
    x, y = make_batch(name, 5)
    x[2] = value
    rest = torch.tensor([0, 1, 3, 4])
    ours, without = compute(model, x, y, 0.3), compute(model, x[rest], y[rest], 0.3)
    assert torch.isfinite(ours).all()
    assert (ours - without).norm() <= 0.3 * (1 + 1e-5)


def test_person_of_a_record_that_is_not_finite_adds_nothing():
    model = make_model("conv2d")
    x, y = make_batch("conv2d", 5)
    x[2] = torch.nan
    ours = compute(model, x, y, owners=torch.tensor([0, 1, 1, 2, 2]))
    rest = torch.tensor([0, 3, 4])
    assert is_close(ours, compute(model, x[rest], y[rest], owners=torch.tensor([0, 2, 2])))


def test_loss_sum_leaves_out_what_is_not_finite():
    model = make_model("conv2d")
    x, y = make_batch("conv2d", 3)
    expected = functional.cross_entropy(model(x[1:]), y[1:], reduction="sum").item()
    x[0] = torch.nan
    _, loss_sum = make_book_keeper(model).compute_clipped_sum(x, y, max_grad_norm=1.0)
    assert loss_sum == pytest.approx(expected, rel=1e-5)


def test_records_of_a_person_that_cancel_do_not_drown_the_others():
    """The person's mean gradient is zero; the others' add up to four times the clip."""
    model = nn.Linear(4, CLASSES, bias=False)
    with torch.no_grad():
        model.weight.zero_()
    x = torch.tensor([[5.0, 0, 0, 0]]).repeat(6, 1)
    x[2:4] *= torch.tensor([[1e12], [-1e12]])
    y, owners = torch.zeros(6, dtype=torch.int64), torch.tensor([0, 1, 2, 2, 3, 4])
    rest = torch.tensor([0, 1, 4, 5])
    without = compute(model, x[rest], y[rest], 1.0, owners[rest])
    assert without.norm() > 3.9
    assert (compute(model, x, y, 1.0, owners) - without).norm() <= 1 + 1e-5


@pytest.mark.parametrize("width", [2, 40], ids=["made", "ghost"])
def test_positions_of_a_record_that_cancel_do_not_drown_the_others(width):
    """The record's gradient is zero; the others' add up to four times the clip."""
    first = nn.Linear(width, width, bias=False)
    last = nn.Linear(2 * width, CLASSES, bias=False)
    last.weight.requires_grad = False
    with torch.no_grad():
        first.weight.zero_()
        last.weight[:, width:] = last.weight[:, :width]
    model = nn.Sequential(first, nn.Flatten(), last)
    x, y = torch.full((5, 2, width), 50.0), torch.zeros(5, dtype=torch.int64)
    x[2, 0], x[2, 1] = 1e12, -1e12
    rest = torch.tensor([0, 1, 3, 4])
    without = compute(model, x[rest], y[rest], 1.0)
    assert without.norm() > 3.9
    assert (compute(model, x, y, 1.0) - without).norm() <= 1 + 1e-5


def test_frozen_parameters_are_left_out():
    model = make_model("conv2d")
    model[0].weight.requires_grad = model[1].bias.requires_grad = False
    model[5].requires_grad_(False)
    x, y = make_batch("conv2d", 4)
    expected = clip_and_sum(make_samples(model, x, y), 0.3)
    assert is_close(compute(model, x, y), expected)
    assert [p.requires_grad for p in model.parameters()].count(False) == 4


def test_model_is_left_as_it_was_by_an_error():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(2, 2))
    with pytest.raises(RuntimeError):
        compute(model, torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all("forward" not in vars(module) for module in model.modules())
    assert model[0](torch.zeros(1, 4)).requires_grad


def test_pass_keeps_no_tensor_alive():
    model = make_model("conv2d")
    x, y = make_batch("conv2d", 4)
    keeper, seen = make_book_keeper(model), weakref.ref(x)
    keeper.compute_clipped_sum(x, y, max_grad_norm=1.0)
    del x
    gc.collect()
    assert seen() is None


def test_input_changed_after_a_layer_has_read_it_is_refused():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            hidden = self.first(x)
            hidden += self.second(hidden)
            return hidden

    with pytest.raises(ConfigError, match="'second' is changed in place"):
        compute(Residual(), torch.ones(2, 4), torch.zeros(2, dtype=torch.int64))


def test_layer_whose_first_dimension_is_not_the_record_is_refused():
    class Folded(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 3)

        def forward(self, x):
            return self.layer(x.reshape(-1, 2)).view(len(x), 2, 3).sum(1)

    with pytest.raises(ConfigError, match=r"'layer' gets an input of shape \(6, 2\)"):
        compute(Folded(), torch.ones(3, 4), torch.zeros(3, dtype=torch.int64))


@pytest.mark.parametrize(
    ("layer", "match"),
    [
        (nn.LSTM(4, 6, proj_size=2, batch_first=True), "proj_size = 2"),
        (nn.MultiheadAttention(4, 2, kdim=3, batch_first=True), "kdim"),
        (nn.Embedding(5, 4, max_norm=1.0), "max_norm"),
        (nn.Bilinear(2, 2, 2), "no per-record gradient"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_layer_without_per_record_gradients_is_refused(layer, match):
    with pytest.raises(ConfigError, match=match):
        BookKeeper(nn.Sequential(layer))


def test_models_with_rules_do_not_import_opacus():
    code = (
        "import sys; from torch import nn; from fedtrain.training.dp_sgd import make_book_keeper;"
        "make_book_keeper(nn.Sequential(nn.Linear(2, 2), nn.Transformer(8, 2, batch_first=True)));"
        "sys.exit('opacus' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_attention_masks_are_those_of_torch():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
            self.output = nn.Linear(WIDTH, CLASSES)

        def forward(self, x):
            causal = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
            padding = (x[:, :, 0] > 1) & (torch.arange(x.shape[1]) > 0)
            mixed, weights = self.attention(
                x, x.flip(1), x, key_padding_mask=padding, attn_mask=causal
            )
            return self.output(mixed.mean(1)) + weights.sum((1, 2))[:, None] * x[:, 0, :1]

    torch.manual_seed(0)
    model, x = Masked(), torch.randn(4, 5, WIDTH)
    y = torch.tensor([0, 1, 2, 0])
    assert is_close(compute(model, x, y), clip_and_sum(make_samples(model, x, y), 0.3))


def test_initial_states_pass_their_gradients_on():
    class Started(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.layer = nn.Linear(4, WIDTH), nn.LSTM(4, WIDTH, batch_first=True)
            self.second, self.output = nn.GRU(WIDTH, WIDTH, batch_first=True), nn.Linear(WIDTH, 3)

        def forward(self, x):
            start = self.first(x[:, 0]).unsqueeze(0)
            outputs, (hidden, cell) = self.layer(x, (start, torch.tanh(start)))
            return self.output(self.second(outputs, hidden + cell)[1][0])

    torch.manual_seed(0)
    model = Started()
    x, y = make_batch("lstm", 4)
    assert is_close(compute(model, x, y), clip_and_sum(make_samples(model, x, y), 0.3))


def test_dropout_draws_what_autograd_would():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 50), nn.Dropout(0.5), nn.Flatten(), nn.Linear(250, CLASSES))
    x, y = make_batch("lstm", 4)
    torch.manual_seed(1)
    ours = compute(model, x, y, 1e9)
    torch.manual_seed(1)
    loss = functional.cross_entropy(model(x), y, reduction="sum")
    assert is_close(ours, flatten(torch.autograd.grad(loss, list(model.parameters()))))

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from fedtrain.config import parse_config
from fedtrain.data.shards import Split
from fedtrain.errors import PeerError
from fedtrain.params import ModelState
from fedtrain.resolution import resolve
from fedtrain.training.local import LocalTrainer

POISSON = """
[training]
sampling = "poisson"
sample_rate = 0.3
expected_batch_size = 15
local_steps = 5
learning_rate = 0.2
momentum = 0.5
"""
PRIVATE = (
    POISSON
    + """
[federation]
select = "last"
[privacy]
unit = "record"
noise_multiplier = {noise}
max_grad_norm = {clip}
"""
)


def make_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))


def make_trainer(text: str) -> tuple[LocalTrainer, np.ndarray]:
    model = make_model()
    start = ModelState(model).read()
    return LocalTrainer(model, resolve(parse_config(text))), start


def train(trainer, task):
    (update,) = trainer.train([task])
    assert not isinstance(update, PeerError), update
    return update


@pytest.mark.parametrize(
    ("text", "optimiser"),
    [
        ("learning_rate = 0.1", lambda p: torch.optim.SGD(p, lr=0.1)),
        (
            "learning_rate = 0.1\nmomentum = 0.9\nweight_decay = 0.01",
            lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
        ),
        ("optimiser = 'adam'\nlearning_rate = 0.01", lambda p: torch.optim.Adam(p, lr=0.01)),
        (
            "optimiser = 'adamw'\nlearning_rate = 0.01\nweight_decay = 0.1",
            lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
        ),
        (
            "learning_rate = 0.1\nmomentum = 0.9\nnesterov = true\nweight_decay = 0.01",
            lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
        ),
        (
            "optimiser = 'rmsprop'\nlearning_rate = 0.01\nmomentum = 0.5",
            lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5),
        ),
        (
            "optimiser = 'adam'\nlearning_rate = 0.01\nadam_betas = [0.0, 0.95]",
            lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.0, 0.95)),
        ),
        (
            "optimiser = 'adamw'\nlearning_rate = 0.01\nadam_betas = [0.8, 0.9]",
            lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.8, 0.9), weight_decay=0.0),
        ),
        (
            "optimiser = 'rmsprop'\nlearning_rate = 0.01\nrmsprop_alpha = 0.5",
            lambda p: torch.optim.RMSprop(p, lr=0.01, alpha=0.5),
        ),
    ],
    ids=[
        *("sgd", "momentum", "adam", "adamw", "nesterov", "rmsprop"),
        *("adam's betas", "adamw's betas", "rmsprop's alpha"),
    ],
)
def test_training_equals_a_plain_pytorch_loop(text, optimiser, records, make_task):
    trainer, start = make_trainer(f"[training]\nbatch_size = 16\nlocal_epochs = 2\n{text}")
    update = train(trainer, make_task(start))
    model = make_model()
    steps, generator = optimiser(model.parameters()), torch.Generator().manual_seed(1)
    x, y = torch.from_numpy(records.features), torch.from_numpy(records.labels)
    for _ in range(2):
        for index in torch.randperm(50, generator=generator).split(16):
            steps.zero_grad()
            functional.cross_entropy(model(x[index]), y[index]).backward()
            steps.step()
    np.testing.assert_allclose(update.vector, ModelState(model).read(), rtol=1e-5, atol=1e-6)
    assert update.steps == 8


def test_noiseless_private_training_equals_training_without_privacy(make_task):
    plain, start = make_trainer(POISSON)
    private, _ = make_trainer(PRIVATE.format(noise=0, clip=1e6))
    expected, update = train(plain, make_task(start)), train(private, make_task(start))
    np.testing.assert_allclose(update.vector, expected.vector, rtol=1e-4, atol=1e-5)
    assert update.train_loss == pytest.approx(expected.train_loss, rel=1e-5)
    assert not np.allclose(expected.vector, start)


def test_noise_moves_the_update_by_its_deviation(make_task):
    quiet, start = make_trainer(PRIVATE.format(noise=0, clip=1))
    noisy, _ = make_trainer(PRIVATE.format(noise=3.0, clip=1))
    difference = train(noisy, make_task(start)).vector - train(quiet, make_task(start)).vector
    assert np.abs(difference).max() > 0.05


def test_fixed_steps_cross_epochs(make_task):
    trainer, start = make_trainer("[training]\nbatch_size = 20\nlocal_steps = 7")
    assert train(trainer, make_task(start)).steps == 7


@pytest.mark.parametrize(
    "text", ["[training]\nbatch_size = 16", POISSON], ids=["shuffle", "poisson"]
)
def test_proximal_term_pulls_towards_the_start(text, make_task):
    trainer, start = make_trainer(text)
    free = train(trainer, make_task(start)).vector
    near = train(trainer, make_task(start, proximal_mu=3.0)).vector
    assert 0 < np.linalg.norm(near - start) < np.linalg.norm(free - start)


def test_proximal_step_is_the_gradient_of_its_penalty(records, make_task):
    trainer, start = make_trainer("[training]\nbatch_size = 25\nlearning_rate = 0.1")
    update = train(trainer, make_task(start, proximal_mu=2.0))
    model, anchor = make_model(), [p.detach().clone() for p in make_model().parameters()]
    x, y = torch.from_numpy(records.features), torch.from_numpy(records.labels)
    for index in torch.randperm(50, generator=torch.Generator().manual_seed(1)).split(25):
        penalty = sum(((p - a) ** 2).sum() for p, a in zip(model.parameters(), anchor, strict=True))
        loss = functional.cross_entropy(model(x[index]), y[index]) + 2.0 / 2 * penalty
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.1 * p.grad
    np.testing.assert_allclose(update.vector, ModelState(model).read(), rtol=1e-5, atol=1e-6)


def test_private_proximal_term_needs_no_record(make_task, records):
    trainer, start = make_trainer(PRIVATE.format(noise=0, clip=1e-9))
    moved = start + 1
    update = train(trainer, make_task(moved, proximal_mu=1.0))
    np.testing.assert_allclose(update.vector, moved, atol=1e-5)


def test_task_that_diverges_spoils_only_itself(make_task, records):
    trainer, start = make_trainer("[training]\nlearning_rate = 0.1")
    wild = Split(np.full_like(records.features, np.nan), records.labels)
    first, second = trainer.train([make_task(start, records=wild), make_task(start)])
    assert isinstance(first, PeerError)
    np.testing.assert_array_equal(second.vector, train(trainer, make_task(start)).vector)


def test_evaluation_adds_up_all_batches(records):
    trainer, start = make_trainer("[training]\nlearning_rate = 0.1")
    many = Split(np.tile(records.features, (100, 1)), np.tile(records.labels, 100))
    one, all_ = trainer.evaluate(start, records), trainer.evaluate(start, many)
    assert all_.count == 100 * one.count
    assert all_.loss_sum == pytest.approx(100 * one.loss_sum, rel=1e-5)
    assert (all_.confusion == 100 * one.confusion).all()


def test_evaluation_of_a_model_that_is_not_finite_is_refused(records):
    trainer, start = make_trainer("[training]\nlearning_rate = 0.1")
    with pytest.raises(PeerError, match="not finite"):
        trainer.evaluate(np.full_like(start, np.nan), records)


def test_unused_parameters_stay(records, make_task):
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = nn.Linear(6, 2), nn.Linear(2, 2)

        def forward(self, x):
            return self.used(x)

    model = Spare()
    state = ModelState(model)
    start = state.read()
    update = train(LocalTrainer(model, resolve(parse_config(""))), make_task(start))
    np.testing.assert_array_equal(update.vector[14:], start[14:])
    assert (update.vector[:14] != start[:14]).any()


def test_batch_clip_and_l1_equal_a_plain_pytorch_loop(records, make_task):
    text = "[training]\nbatch_size = 50\nlocal_steps = 3\nmax_grad_norm = 0.2\nl1 = 0.01"
    trainer, start = make_trainer(text)
    update = train(trainer, make_task(start))
    model, generator = make_model(), torch.Generator().manual_seed(1)
    x, y = torch.from_numpy(records.features), torch.from_numpy(records.labels)
    for _ in range(3):
        index = torch.randperm(50, generator=generator)
        model.zero_grad()
        functional.cross_entropy(model(x[index]), y[index]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.2)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * (parameter.grad + 0.01 * parameter.sign())
    np.testing.assert_allclose(update.vector, ModelState(model).read(), rtol=1e-5, atol=1e-6)


def test_schedules_factor_scales_the_learning_rate(make_task):
    half, start = make_trainer("[training]\nlearning_rate = 0.1")
    whole, _ = make_trainer("[training]\nlearning_rate = 0.05")
    first = train(half, make_task(start, rate_factor=0.5)).vector
    np.testing.assert_array_equal(first, train(whole, make_task(start)).vector)


def test_units_left_out_follow_from_the_task_alone(records, make_task):
    model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 2))
    start = ModelState(model).read()
    trainer = LocalTrainer(model, resolve(parse_config("[model]\ndropout = 0.5")))
    first = train(trainer, make_task(start)).vector
    torch.rand(3)
    np.testing.assert_array_equal(first, train(trainer, make_task(start)).vector)
    assert not np.array_equal(first, train(trainer, make_task(start, round=2)).vector)


def test_site_without_records_has_no_update_of_shuffled_batches(records, make_task):
    trainer, start = make_trainer("")
    nobody = Split(records.features[:0], records.labels[:0])
    (found,) = trainer.train([make_task(start, records=nobody)])
    assert isinstance(found, PeerError)

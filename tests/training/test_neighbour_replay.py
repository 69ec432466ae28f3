"""Neighbour replay: a round on a data set, and on it without one record, with equal randomness.

What differs may be no more than one clipped gradient, in the step that the record joins; what a
site does and says besides must not differ at all. Noise and everybody else's sampling are coupled:
a sampler draws for the whole data set and leaves the record's own decision out.

References:
    Cebere et al. 2026 (arXiv:2602.17454): replaying steps on neighbours with the same randomness.
"""

import numpy as np
import pytest
import torch
from opacus import PrivacyEngine
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from fedtrain.config import ModelSection, parse_config
from fedtrain.data.shards import Split
from fedtrain.models.registry import build_model
from fedtrain.params import ModelState
from fedtrain.plan import build_record_plan, make_entry
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.resolution import resolve
from fedtrain.training.local import LocalTask, LocalTrainer, LocalUpdate
from tests.training.small_models import CLASSES, MODELS, make_batch, make_model

CLIP, STEPS, RECORDS, REMOVED = 0.5, 3, 24, 7
IMAGE = (1, 8, 8)
SHIPPED = ("logistic", "mlp", "cnn_small", "cnn_groupnorm")
# Divisor and learning rate are 1: the last step moves the model by the noisy sum itself.
CONFIG = f"""
[training]
sampling = "poisson"
sample_rate = 0.4
expected_batch_size = 1
local_steps = {STEPS}
learning_rate = 1.0
[federation]
select = "last"
[privacy]
unit = "record"
noise_multiplier = 0.1
max_grad_norm = {CLIP}
"""


class CoupledSampler:
    """Poisson sampling of a data set, for it and for what is left without one record.

    The record joins the last step only, so that until then both runs are the same.
    """

    def __init__(self, *, left_out: bool, joins: bool = True):
        self.generator = SecureGenerator.from_seed(0, "sampling")
        self.left_out, self.joins, self.step = left_out, joins, 0

    def draw_poisson_subset(self, n, *, rate):
        self.step += 1
        mask = self.generator.draw_poisson_mask(RECORDS, rate=rate)
        mask[REMOVED] = self.joins and self.step == STEPS
        mask = np.delete(mask, REMOVED) if self.left_out else mask
        assert len(mask) == n
        return np.flatnonzero(mask)


def build(name):
    if name in MODELS:
        return make_model(name)
    generator = torch.Generator().manual_seed(0)
    return build_model(
        ModelSection(name=name), input_shape=IMAGE, classes=CLASSES, generator=generator
    )


def make_records(name, value=None):
    """Return a data set, its record `REMOVED` set to a value."""
    torch.manual_seed(1)
    x, y = make_batch(name, RECORDS) if name in MODELS else (torch.randn(RECORDS, *IMAGE), None)
    y = torch.arange(RECORDS) % CLASSES if y is None else y
    if value is not None:
        x[REMOVED] = value
    return Split(x.numpy().copy(), y.numpy().copy())


def run_round(name, records, *, left_out, joins=True):
    """Return the update of a round and the model's start."""
    torch.manual_seed(0)
    model, config = build(name), resolve(parse_config(CONFIG))
    if left_out:
        kept = np.delete(np.arange(RECORDS), REMOVED)
        records = Split(records.features[kept], records.labels[kept])
    task = LocalTask(
        records=records,
        start=ModelState(model).read(),
        shuffling=torch.Generator(),
        sampling=CoupledSampler(left_out=left_out, joins=joins),
        noise=SecureGenerator.from_seed(0, "noise"),
    )
    (update,) = LocalTrainer(model, config).train([task])
    assert isinstance(update, LocalUpdate), update
    return update


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), 3e38, 1e6, 0.0])
@pytest.mark.parametrize("name", [*SHIPPED, "lstm", "gru", "conv1d", "conv2d"])
def test_sums_of_neighbours_differ_by_at_most_the_clip(name, value):
    records = make_records(name, value)
    one, other = (run_round(name, records, left_out=out) for out in (False, True))
    assert np.linalg.norm(one.vector - other.vector) <= CLIP * (1 + 1e-5) + 1e-5


def test_sums_of_neighbours_differ_by_at_most_the_clip_for_tokens():
    records = make_records("transformer")
    one, other = (run_round("transformer", records, left_out=out) for out in (False, True))
    assert 0.9 * CLIP < np.linalg.norm(one.vector - other.vector) <= CLIP * (1 + 1e-5) + 1e-5


@pytest.mark.parametrize("name", [*SHIPPED, "lstm", "transformer"])
def test_record_that_joins_no_step_changes_nothing(name):
    records = make_records(name)
    one, other = (run_round(name, records, left_out=out, joins=False) for out in (False, True))
    assert one.vector.tobytes() == other.vector.tobytes()
    assert one.train_loss == other.train_loss


@pytest.mark.parametrize("value", [None, float("nan"), 3e38])
def test_what_a_site_says_of_neighbours_is_identical(value):
    said = []
    for left_out in (False, True):
        update = run_round("mlp", make_records("mlp", value), left_out=left_out)
        plan = build_record_plan(resolve(parse_config(CONFIG)))
        entry = make_entry(plan, site="a", round=1, update_digest=None)
        said.append((update.steps, update.vector.shape, update.vector.dtype, entry.to_json()))
    assert said[0] == said[1]


def run_opacus_step(count, *, records):
    """Return the weights after a step of Opacus on some of `count` records, a fixed few joining."""
    torch.manual_seed(0)
    model = nn.Linear(784, CLASSES)
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
    loader = DataLoader(TensorDataset(torch.zeros(count, 784)), batch_size=64)
    module, optimiser, _ = PrivacyEngine().make_private(
        module=model,
        optimizer=optimiser,
        data_loader=loader,
        noise_multiplier=2.0,
        max_grad_norm=CLIP,
        noise_generator=torch.Generator().manual_seed(0),
    )
    labels = torch.arange(len(records)) % CLASSES
    functional.cross_entropy(module(records), labels).backward()
    optimiser.step()
    return ModelState(model).read(), optimiser.expected_batch_size


@pytest.mark.filterwarnings("ignore:Secure RNG", "ignore:Full backward hook", "ignore:Using a non")
@pytest.mark.parametrize(("other", "is_found"), [(1007, True), (1008, False)])
def test_replay_finds_the_divisor_that_opacus_computes_from_the_data(other, is_found):
    """Control: 1008 and 1007 records, of which the same 60 join, give other divisors: 63 and 62."""
    records = torch.randn(60, 784)
    one, divisor = run_opacus_step(1008, records=records)
    neighbour, _ = run_opacus_step(other, records=records)
    moved = np.linalg.norm(one - neighbour) * divisor
    assert (moved > CLIP) == is_found

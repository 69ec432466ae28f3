import numpy as np
import pytest
import torch

from fedtrain.config import parse_config
from fedtrain.data.shards import Split
from fedtrain.errors import ConfigError
from fedtrain.params import ModelState
from fedtrain.resolution import resolve
from fedtrain.training.local import LocalTrainer
from fedtrain.training.masking import Hiding, start_hiding

MASKED = "[data]\ntask = 'masked'\nmask_share = {0}"


def test_hiding_sets_about_its_share_to_0_and_leaves_the_rest():
    features = torch.rand(400, 10) + 1
    hidden = Hiding(0.3, 1).apply(features)
    assert float((hidden == 0).float().mean()) == pytest.approx(0.3, abs=0.03)
    assert torch.equal(hidden[hidden != 0], features[hidden != 0])


def test_hiding_differs_by_record_and_step_and_repeats_with_its_seed():
    features = torch.ones(50, 10)
    first, again = Hiding(0.5, 1), Hiding(0.5, 1)
    one, two = first.apply(features), first.apply(features)
    assert not torch.equal(one, two)
    assert len(torch.unique(one, dim=0)) > 40
    assert torch.equal(one, again.apply(features))


def test_other_tasks_hide_nothing_and_draw_nothing():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert start_hiding(parse_config(""), generator) is None
    assert torch.equal(before, generator.get_state())


def test_evaluation_hides_the_same_each_time_and_no_label_matters():
    model = torch.nn.Linear(6, 6)
    trainer = LocalTrainer(model, resolve(parse_config(MASKED.format(0.5))))
    vector = ModelState(model).read()
    features = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32)
    first = trainer.evaluate(vector, Split(features, np.zeros(30, np.int64)))
    second = trainer.evaluate(vector, Split(features, np.ones(30, np.int64)))
    assert first.to_flat() == second.to_flat()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[data]\nmask_share = 0.5", "no effect while data.task = 'classification'"),
        ("[data]\ntask = 'masked'\naugmentation = ['flip']", "hides; remove it"),
        ("[data]\ntask = 'masked'\nsource = 'text'", "ids and no numbers"),
        ("[data]\ntask = 'masked'\n[training]\nloss = 'focal'", "choose mse"),
    ],
)
def test_contradiction_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(text)

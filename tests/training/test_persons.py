"""The privacy unit "person": all records of a person join a step, and are clipped, together."""

import numpy as np
import pytest
import torch

from fedtrain.config import ModelSection, parse_config
from fedtrain.data.shards import Split
from fedtrain.errors import DataError
from fedtrain.models.registry import build_model
from fedtrain.params import ModelState
from fedtrain.plan import build_record_plan
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.resolution import resolve
from fedtrain.training.local import LocalTask, LocalTrainer, LocalUpdate

CLIP, PERSONS, EACH = 0.5, 12, 4
TEXT = f"""
[data]
person_column = "patient"
[training]
sampling = "poisson"
sample_rate = 1.0
expected_batch_size = 1
local_steps = 1
learning_rate = 1.0
[privacy]
unit = "person"
noise_multiplier = 0.1
max_grad_norm = {CLIP}
"""


def make_records(value=None):
    """Return 12 persons with four records each, those of person 3 set to a value."""
    generator = np.random.default_rng(0)
    persons = np.repeat(np.arange(PERSONS), EACH)
    features = generator.normal(size=(len(persons), 6)).astype(np.float32)
    if value is not None:
        features[persons == 3] = value
    return Split(features, persons % 3, persons)


def without(records, person):
    kept = records.persons != person
    numbers = np.unique(records.persons[kept], return_inverse=True)[1]
    return Split(records.features[kept], records.labels[kept], numbers)


def run(records, text=TEXT):
    model = build_model(
        ModelSection(name="mlp", hidden=(5,)),
        input_shape=(6,),
        classes=3,
        generator=torch.Generator().manual_seed(0),
    )
    task = LocalTask(
        records=records,
        start=ModelState(model).read(),
        shuffling=torch.Generator(),
        sampling=SecureGenerator.from_seed(0, "sampling"),
        noise=SecureGenerator.from_seed(0, "noise"),
    )
    (update,) = LocalTrainer(model, resolve(parse_config(text))).train([task])
    assert isinstance(update, LocalUpdate), update
    return update.vector


@pytest.mark.parametrize("value", [None, 1e6, 0.0, float("nan"), float("inf")])
def test_one_person_changes_the_sum_by_at_most_the_clip(value):
    records = make_records(value)
    difference = np.linalg.norm(run(records) - run(without(records, 3)))
    assert difference <= CLIP * (1 + 1e-5) + 1e-5


def test_under_the_unit_record_the_same_person_changes_it_by_more():
    text = TEXT.replace('unit = "person"', 'unit = "record"')
    records = make_records(1e6)
    difference = np.linalg.norm(run(records, text) - run(without(records, 3), text))
    assert difference > 2 * CLIP


def test_copies_of_a_persons_records_change_nothing():
    records = make_records()
    twice = Split(
        np.concatenate([records.features, records.features[records.persons == 3]]),
        np.concatenate([records.labels, records.labels[records.persons == 3]]),
        np.concatenate([records.persons, np.full(EACH, 3)]),
    )
    np.testing.assert_allclose(run(records), run(twice), atol=1e-5)


def test_one_record_a_person_is_the_unit_record():
    records = make_records()
    alone = Split(records.features, records.labels, np.arange(len(records.labels)))
    text = TEXT.replace('unit = "person"', 'unit = "record"')
    np.testing.assert_allclose(run(alone), run(records, text), atol=1e-5)


def test_persons_join_with_all_their_records_or_none():
    text = TEXT.replace("sample_rate = 1.0", "sample_rate = 0.5").replace("0.1", "0.0")
    records = make_records(0.0)
    for person in range(PERSONS):  # a person's records are one value, so that batches show them
        records.features[records.persons == person] = 0
        records.features[records.persons == person, 0] = person + 1
    mask = np.zeros(PERSONS, bool)
    mask[SecureGenerator.from_seed(0, "sampling").draw_poisson_subset(PERSONS, rate=0.5)] = True
    kept = mask[records.persons]
    numbers = np.unique(records.persons[kept], return_inverse=True)[1]
    chosen = Split(records.features[kept], records.labels[kept], numbers)
    whole = run(chosen, TEXT.replace("0.1", "0.0"))
    assert 0 < kept.sum() < len(kept)
    np.testing.assert_allclose(run(records, text), whole, atol=1e-5)


def test_records_without_persons_are_refused():
    records = make_records()
    with pytest.raises(DataError, match="needs the person of each record"):
        run(Split(records.features, records.labels))


def test_plan_and_cost_name_the_unit():
    assert build_record_plan(resolve(parse_config(TEXT))).unit == "person"

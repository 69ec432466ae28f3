"""Masked vectors look like noise, and vectors without masks do not."""

import pytest

from fedtrain.audit.masking import measure_masking
from fedtrain.audit.plants import PLANTS
from fedtrain.config import build_config
from tests.audit.subjects import subject_of


def make_config(**section):
    return build_config({"secure_aggregation": section})


@pytest.mark.parametrize("ring_bits", [16, 20, 32])
def test_masked_vector_cannot_be_told_from_noise(ring_bits):
    found = measure_masking(subject_of(make_config(ring_bits=ring_bits)))
    assert found.list_problems(0.999) == []
    assert found.sum_is_exact


@pytest.mark.parametrize("ring_bits", [16, 20, 32])
def test_vector_without_masks_is_found(ring_bits):
    subject = subject_of(make_config(ring_bits=ring_bits), plant=PLANTS["no-mask"])
    found = measure_masking(subject)
    assert found.correlation > 0.999
    assert "masked words go with the site's update" in found.list_problems(0.999)


def test_false_alarms_are_as_rare_as_promised():
    config = make_config()
    alarms = [measure_masking(subject_of(config, seed=s)).list_problems(0.95) for s in range(20)]
    assert sum(map(bool, alarms)) <= 4  # 1 is expected at most; 5 or more have a chance of 0.3 %

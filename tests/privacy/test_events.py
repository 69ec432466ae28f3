import dataclasses
import math

import pytest

from fedtrain.errors import ConfigError
from fedtrain.privacy.events import (
    DistributedDiscreteGaussian,
    PoissonSampledGaussian,
    Unprotected,
)


def test_events_are_values():
    assert PoissonSampledGaussian(1.0, 0.1, 5) == PoissonSampledGaussian(1.0, 0.1, 5)
    assert len({Unprotected(), Unprotected()}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        PoissonSampledGaussian(1.0, 0.1, 5).steps = 0  # type: ignore[misc]


@pytest.mark.parametrize("noise_multiplier", [-0.1, math.nan, math.inf])
def test_noise_multiplier_outside_its_range_is_refused(noise_multiplier):
    with pytest.raises(ConfigError, match="noise_multiplier = "):
        PoissonSampledGaussian(noise_multiplier, 0.1, 1)


@pytest.mark.parametrize("sample_rate", [-0.1, 1.1, math.nan])
def test_sample_rate_outside_its_range_is_refused(sample_rate):
    with pytest.raises(ConfigError, match="sample_rate = "):
        PoissonSampledGaussian(1.0, sample_rate, 1)


@pytest.mark.parametrize("steps", [-1, 2**53 + 1])
def test_steps_outside_their_range_are_refused(steps):
    with pytest.raises(ConfigError, match="steps = "):
        PoissonSampledGaussian(1.0, 0.1, steps)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sensitivity", 0.0),
        ("sensitivity", math.nan),
        ("sensitivity", math.inf),
        ("share_variance", -1),
        ("shares", 0),
        ("dimension", 0),
        ("sample_rate", 1.1),
        ("sample_rate", math.nan),
        ("steps", -1),
        ("steps", 2**53 + 1),
    ],
)
def test_noise_in_shares_outside_its_range_is_refused(field, value):
    event = DistributedDiscreteGaussian(1.0, 1, 1, 1, 1.0, 1)
    with pytest.raises(ConfigError, match=f"{field} = "):
        dataclasses.replace(event, **{field: value})

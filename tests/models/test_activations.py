from typing import get_args

import pytest
import torch

from fedtrain.config import ModelSection
from fedtrain.models.layers import ACTIVATIONS
from fedtrain.models.registry import build_model


def test_every_activation_of_the_schema_is_a_layer():
    annotation = ModelSection.model_fields["activation"].annotation
    names = {name for kind in get_args(annotation) for name in get_args(kind)}
    assert names == set(ACTIVATIONS)


@pytest.mark.parametrize("name", ["mlp", "transformer_tabular"])
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_activation_trains(name, activation):
    model = build_model(
        ModelSection(name=name, activation=activation),
        input_shape=(6,),
        classes=2,
        generator=torch.Generator().manual_seed(0),
    )
    model(torch.randn(4, 6)).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)

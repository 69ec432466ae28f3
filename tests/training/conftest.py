"""A small classification problem and what local training needs."""

import numpy as np
import pytest
import torch

from fedtrain.data.shards import Split
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.training.local import LocalTask


@pytest.fixture
def records() -> Split:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(50, 6)).astype(np.float32)
    labels = (features[:, 0] + features[:, 1] > 0).astype(np.int64)
    return Split(features, labels)


@pytest.fixture
def make_task(records):
    def make(start, *, round=1, records=records, **changes):
        return LocalTask(
            records=records,
            start=start,
            shuffling=torch.Generator().manual_seed(round),
            sampling=SecureGenerator.from_seed(0, "sampling", round),
            noise=SecureGenerator.from_seed(0, "noise", round),
            **changes,
        )

    return make

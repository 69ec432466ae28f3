"""Small subjects of audits: digits-like records, a small model, a plan of a wanted epsilon."""

import numpy as np
import torch

from fedtrain.audit.plants import NOTHING, make_subject
from fedtrain.config import build_config
from fedtrain.data.shards import Split
from fedtrain.models.registry import build_model
from fedtrain.resolution import resolve

torch.set_num_threads(1)  # small products: more threads only wait for each other
CLASSES = 10


def make_config(*, unit="record", noise=None, epsilon=None, rate=0.25, rounds=30, steps=4):
    privacy = {"unit": unit, "target_delta": 1e-5, "max_grad_norm": 0.3}
    privacy |= {"noise_multiplier": noise} if epsilon is None else {"target_epsilon": epsilon}
    tree = {
        "model": {"name": "mlp", "hidden": [16], "activation": "tanh"},
        "training": {
            "learning_rate": 2.0,
            "sampling": "poisson",
            "sample_rate": rate,
            "local_steps": steps,
            "expected_batch_size": 36,
        },
        "federation": {"rounds": rounds},
        "privacy": privacy,
    }
    return resolve(build_config(tree))


def make_records(count=120, *, persons=None):
    generator = np.random.default_rng(0)
    features = generator.normal(size=(count, 1, 8, 8)).astype(np.float32)
    labels = generator.integers(0, CLASSES, count)
    owners = None if persons is None else np.sort(np.arange(count) % persons)
    return Split(features, labels, owners)


def build(config):
    generator = torch.Generator().manual_seed(0)
    return build_model(config.model, input_shape=(1, 8, 8), classes=CLASSES, generator=generator)


def subject_of(config, *, seed=0, plant=NOTHING):
    return make_subject(config, seed=seed, plant=plant)

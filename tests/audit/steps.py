"""One step on digits at each of a few sites, and the four views of it."""

import numpy as np
import torch
from sklearn.datasets import load_digits

from fedtrain.audit.views import make_views
from fedtrain.config import ModelSection, SecureAggregationSection
from fedtrain.data.shards import Split
from fedtrain.models.registry import build_model

torch.set_num_threads(1)  # small products: more threads only wait for each other
CLASSES = 10


def load_batches(sites, size, *, seed=0):
    """Return a batch of digits of each site, with as many different labels as there are."""
    digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.target))
    batches = []
    for site in range(sites):
        own = order[site::sites]
        labels = digits.target[own]
        turn = [int(np.sum(labels[:i] == label)) for i, label in enumerate(labels[:300])]
        chosen = own[:300][np.argsort(turn, kind="stable")][:size]
        features = (digits.images[chosen][:, None] / 16).astype(np.float32)
        batches.append(Split(features, digits.target[chosen].astype(np.int64)))
    return batches


def build_mlp(hidden=32, activation="tanh", *, seed=0):
    section = ModelSection(name="mlp", hidden=(hidden,), activation=activation)
    generator = torch.Generator().manual_seed(seed)
    return build_model(section, input_shape=(1, 8, 8), classes=CLASSES, generator=generator)


def view(model, batches, *, plan=None, seed=0):
    section = SecureAggregationSection()
    return make_views(model, batches, plan=plan, section=section, seed=seed)

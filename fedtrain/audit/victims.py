"""Whose records an inversion attacks: the model that sites start from, and a batch of each."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedtrain.audit.methods import AuditContext
from fedtrain.config import Config
from fedtrain.data.preparation import Preparation
from fedtrain.data.shards import Shards, Split
from fedtrain.errors import DataError
from fedtrain.models import start
from fedtrain.models.saved import load_saved_model

MIN_COHORT: Final = 3
MAX_COHORT: Final = 10  # more sites hide more, and take longer


@dataclass(frozen=True)
class Victims:
    """What an inversion is tried on.

    Attributes:
        model: The start model of the run, which every site and the coordinator has.
        splits: Training records of the sites, those with most records first.
        input_shape: Of one record.
        low: Smallest value of a feature in the data.
        high: Largest value.
        classes: Number of labels.
    """

    model: nn.Module
    splits: tuple[Split, ...]
    input_shape: tuple[int, ...]
    low: float
    high: float
    classes: int

    def draw_batches(self, size: int, *, first: int, generator: np.random.Generator) -> list[Split]:
        """Draw a batch of each site of a cohort, of as many labels as there are.

        Args:
            size: B.
            first: Index of the attacked site; its batch comes first.
            generator: Of the draws.
        """
        count = min(max(len(self.splits), MIN_COHORT), MAX_COHORT)
        order = [(first + step) % len(self.splits) for step in range(count)]
        return [_draw(self.splits[site], size, generator) for site in order]


def open_victims(context: AuditContext) -> Victims:
    """Open a run's data and build its start model.

    Raises:
        FedtrainError: Model or data cannot be read, or no site has records to train on.
    """
    config = context.config
    saved = load_saved_model(context.run, allowed_functions=(config.model.name,))
    preparation = Preparation.from_json(dict(saved.preparation))
    shards = Shards.open(config, strict=True)
    splits = [shards.load(site, preparation).train for site in range(len(shards))]
    splits = sorted((s for s in splits if len(s)), key=len, reverse=True)
    if not splits or preparation.is_discrete:
        raise DataError(
            "there is no site with records of numbers to attack; inversion needs features that a"
            " gradient reaches"
        )
    return Victims(
        build_start_model(config, preparation),
        tuple(splits),
        preparation.input_shape,
        low=float(min(s.features.min() for s in splits)),
        high=float(max(s.features.max() for s in splits)),
        classes=len(preparation.label_names),
    )


def build_start_model(config: Config, preparation: Preparation) -> nn.Module:
    """Build the model of round 0, as the coordinator does."""
    return start.build_start_model(
        config,
        input_shape=preparation.input_shape,
        classes=len(preparation.label_names),
        input_dtype=torch.int64 if preparation.is_discrete else torch.float32,
    )


def _draw(split: Split, size: int, generator: np.random.Generator) -> Split:
    """Draw records, one of each label before a second of any."""
    order = generator.permutation(len(split))
    turns = _count_earlier(split.labels[order])
    chosen = order[np.argsort(turns, kind="stable")][:size]
    return Split(split.features[chosen], split.labels[chosen])


def _count_earlier(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many earlier records have each record's label, `(n,)`."""
    earlier = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        own = labels == label
        earlier[own] = np.arange(int(own.sum()))
    return earlier

"""The model and the records of one site of a finished run, for attacks that need them."""

from dataclasses import dataclass
from typing import Final

import torch
from torch import nn

from fedtrain.audit.methods import AuditContext
from fedtrain.data.persons import number_persons
from fedtrain.data.preparation import Preparation
from fedtrain.data.shards import Shards, Split
from fedtrain.models.registry import build_described_model
from fedtrain.models.saved import SavedModel, load_saved_model

# Records of a site beside the sentinels: enough for every step to have some.
MAX_RECORDS: Final = 256


@dataclass(frozen=True)
class SiteData:
    """One site of a run.

    Attributes:
        name: Of the site.
        saved: The run's model, with its preparation.
        train: The site's training records.
    """

    name: str
    saved: SavedModel
    train: Split

    def build_model(self, *, seed: int = 0) -> nn.Module:
        """Return a model of the run's architecture with fresh parameters."""
        return build_described_model(
            self.saved.architecture, torch.Generator().manual_seed(seed)
        ).train()

    def take_few(self) -> Split:
        """Return the first of the site's training records."""
        return take_first(self.train, MAX_RECORDS)


def open_site_data(context: AuditContext, index: int = 0) -> SiteData:
    """Open the model and one site's records of a run.

    Args:
        context: What is audited; code of the user's own that its config names is run, as it was
            in the run.
        index: Of the site.

    Raises:
        FedtrainError: The model or the data is missing, damaged or another.
    """
    config = context.config
    saved = load_saved_model(context.run, allowed_functions=[config.model.name])
    shards = Shards.open(config)
    shard = shards.load(index, Preparation.from_json(dict(saved.preparation)))
    return SiteData(shards.site_names[index], saved, shard.train)


def take_first(records: Split, count: int) -> Split:
    """Return the first records of a split, their persons numbered anew."""
    persons = None if records.persons is None else number_persons(records.persons[:count])
    return Split(records.features[:count], records.labels[:count], persons)

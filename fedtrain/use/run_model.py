"""The model of a run, with what it needs to take new records.

Shapes: n records, C outputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedtrain.config import Config, load_config
from fedtrain.data.preparation import Preparation
from fedtrain.data.shards import Split
from fedtrain.errors import DataError, RunDirectoryError
from fedtrain.models.saved import load_saved_model
from fedtrain.params import ModelState
from fedtrain.training.local import LocalTrainer
from fedtrain.training.measures import Sums, build_measure

BATCH: Final = 2048

Records = NDArray[Any]
Labels = NDArray[Any]


@dataclass(frozen=True)
class RunModel:
    """The model that a run chose.

    Attributes:
        path: The run directory.
        config: The run's resolved config.
        module: The model, in evaluation mode.
        preparation: How raw records become its inputs.
        description: What `model.json` holds of it, to go with an export.
    """

    path: Path
    config: Config
    module: nn.Module
    preparation: Preparation
    description: Mapping[str, Any]

    @property
    def label_names(self) -> tuple[str, ...]:
        """Name of each class, in the order of the outputs."""
        return self.preparation.label_names

    def compute_outputs(self, features: NDArray[Any]) -> NDArray[np.float32]:
        """Return the outputs of prepared records, `(n, C)`.

        Raises:
            DataError: An output is NaN or infinite.
        """
        with torch.no_grad():
            parts = [self.module(part) for part in torch.split(torch.from_numpy(features), BATCH)]
        outputs: NDArray[np.float32] = torch.cat(parts).float().numpy()
        if not np.isfinite(outputs).all():
            row = int(np.argmin(np.isfinite(outputs).reshape(len(outputs), -1).all(axis=1)))
            raise DataError(
                f"record {row}: the model's outputs are not finite; check the record's values"
            )
        return outputs

    def compute_probabilities(self, features: NDArray[Any]) -> NDArray[np.float64]:
        """Return the probability of each class for prepared records, `(n, C)`."""
        outputs = torch.from_numpy(self.compute_outputs(features)).double()
        return torch.softmax(outputs, dim=1).numpy()

    def compute_sums(self, features: NDArray[Any], labels: NDArray[Any]) -> Sums:
        """Return the metric sums over prepared records, as a site computes them."""
        return self._trainer.evaluate(self._vector, Split(features, labels))

    def compute_metrics(self, features: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
        """Return the run's metrics over prepared records."""
        measure = build_measure(self.config, classes=len(self.label_names))
        return measure.describe(self.compute_sums(features, labels))

    @cached_property
    def _trainer(self) -> LocalTrainer:
        return LocalTrainer(self.module, self.config, private=False)

    @cached_property
    def _vector(self) -> NDArray[np.float32]:
        return ModelState(self.module).read()


def load_run_model(path: Path) -> RunModel:
    """Read the chosen model of a run.

    Args:
        path: A run directory; code of the user's own that its config names is run, as it was in
            the run.

    Raises:
        RunDirectoryError: It holds no model, such as where the run has not ended, or no whole one.
        AuditError: A file is damaged.
    """
    config = load_config(path / "config.toml")
    own = config.personalisation
    if own is not None and own.local_layers:
        raise RunDirectoryError(
            f"{path}: has no whole model, {', '.join(own.local_layers)} stayed at their sites"
            " (personalisation.local_layers); each site has its own below kept/"
        )
    saved = load_saved_model(path, allowed_functions=[config.model.name])
    description = {
        "architecture": dict(saved.architecture),
        "preparation": dict(saved.preparation),
        "label_names": list(saved.label_names),
        "notes": dict(saved.notes),
    }
    preparation = Preparation.from_json(dict(saved.preparation))
    return RunModel(path, config, saved.model, preparation, description)

"""What a run forgot of what its start model knew: metrics on earlier records, before and after."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Group, RenderableType

from fedtrain.data.shards import Shards
from fedtrain.errors import ConfigError
from fedtrain.models.start import build_start_model
from fedtrain.report.run import is_run
from fedtrain.report.tables import format_count, format_number, label_metric, make_table
from fedtrain.use.evaluation import OUTSIDE
from fedtrain.use.new_records import read_labelled_records
from fedtrain.use.run_model import Labels, Records, RunModel, load_run_model


@dataclass(frozen=True)
class Forgetting:
    """Metrics on earlier records.

    Attributes:
        data: Where the records are from.
        records: Number of them.
        before: Metrics of the model that the run started from.
        after: Metrics of the model that it ended with.
    """

    data: str
    records: int
    before: dict[str, float]
    after: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return the metrics as values that JSON can hold."""
        changes = {k: self.after[k] - self.before[k] for k in self.before if k in self.after}
        return {
            "data": self.data,
            "records": self.records,
            "before": self.before,
            "after": self.after,
            "change": changes,
        }


def measure_forgetting(
    model: RunModel, path: Path | None = None, *, label: str | None = None
) -> Forgetting:
    """Evaluate the model that a run started from, and the one that it ended with.

    Args:
        model: The run's model.
        path: Earlier records with labels; by default the test records, at all sites, of the run
            that it started from.
        label: See `read_labelled_records`.

    Raises:
        ConfigError: The run has no start but its seed, or there are no records to take.
    """
    start = model.config.model.start_from
    if start is None:
        raise ConfigError(
            f"{model.path} started from its seed, and could forget nothing; give a run with"
            " model.start_from"
        )
    if path is not None:
        records, labels = read_labelled_records(model, path, label=label)
        features, name = records.features, str(path)
    else:
        features, labels = _load_earlier(model, Path(start))
        name = f"test records of {start}"
    before = _restart(model).compute_metrics(features, labels)
    return Forgetting(name, len(labels), before, model.compute_metrics(features, labels))


def render_forgetting(forgetting: Forgetting) -> RenderableType:
    """Return before and after as a table."""
    rows = []
    for name, value in forgetting.before.items():
        after = forgetting.after.get(name)
        change = None if after is None else after - value
        rows.append([label_metric(name), *(format_number(x) for x in (value, after, change))])
    title = f"{forgetting.data}: {format_count(forgetting.records, 'record')}"
    return Group(title, make_table(["metric", "before", "after", "change"], rows), OUTSIDE)


def _restart(model: RunModel) -> RunModel:
    """Return the model as it was before the first round."""
    preparation = model.preparation
    module = build_start_model(
        model.config,
        input_shape=preparation.input_shape,
        classes=preparation.outputs,
        input_dtype=torch.int64 if preparation.is_discrete else torch.float32,
    )
    return RunModel(model.path, model.config, module.eval(), preparation, model.description)


def _load_earlier(model: RunModel, start: Path) -> tuple[Records, Labels]:
    """Return the test records of the run that the start is of, prepared as this run's are."""
    if not is_run(start):
        raise ConfigError(f"{start} is no run, whose test records there would be; give --data")
    earlier = load_run_model(start)
    shards = Shards.open(earlier.config)
    tests = [shards.load(site, earlier.preparation).test for site in range(len(shards))]
    if earlier.preparation != model.preparation:
        raise ConfigError(
            f"{start} prepared its records otherwise than {model.path}; give --data with raw ones"
        )
    features = np.concatenate([test.features for test in tests])
    return features, np.concatenate([test.labels for test in tests])

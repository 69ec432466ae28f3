"""Shadow federations: the same scenario, dealt and trained again, for membership inference.

Each has another seed, so that sites, splits, start model, batches and noise are drawn anew, and
half of the records is left out. Every record is then in about half of them, and each can take its
turn as the target, whose members are known.

Shapes: m federations, n records.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from fedtrain.audit.membership import compute_margins
from fedtrain.config import Config, build_config, to_tree
from fedtrain.data.preparation import Preparation
from fedtrain.data.shards import Shards, Split
from fedtrain.models.saved import load_saved_model
from fedtrain.resolution import resolve
from fedtrain.seeds import derive_seed

from .opening import open_config
from .progress import Silence
from .simulate import simulate, start

LEFT_OUT: Final = 0.5
_BATCH: Final = 2048
# Where sites are many or records are, the passes over all of them are what costs.
MAX_RECORDS: Final = 20_000


@dataclass(frozen=True)
class Shadows:
    """What the shadow federations say of every record.

    Attributes:
        margins: Log-odds of the true label, `(m, n)`.
        joined: Whether the record was trained on, `(m, n)`.
        rows: Which records of the data they are, `(n,)`.
    """

    margins: NDArray[np.float64]
    joined: NDArray[np.bool_]
    rows: NDArray[np.int64]

    def without(self, index: int) -> "Shadows":
        """Return all federations but one."""
        others = np.arange(len(self.margins)) != index
        return Shadows(self.margins[others], self.joined[others], self.rows)


def make_shadow_config(config: Config, seed: int, *, protected: bool = True) -> Config:
    """Return the config of one shadow federation.

    Args:
        config: The run's, resolved.
        seed: Of the shadow.
        protected: False: without clip and noise, all else as it is.

    Raises:
        ConfigError: The shadow cannot be run.
    """
    tree = to_tree(config)
    tree["run"] |= {"seed": seed, "name": "shadow"}
    tree["data"] |= {"validation_fraction": 0.0, "test_fraction": LEFT_OUT, "central_test": False}
    tree["federation"] |= {"evaluate_every": 0, "select": "last"}
    tree["simulation"] = {"workers": config.simulation.workers}
    if not protected:
        tree["privacy"] = {"unit": "none"}
    # The same sum without keys: what is attacked is the model, not the way to it.
    tree["secure_aggregation"]["mode"] = "arithmetic" if _is_summed(tree) else "off"
    return resolve(build_config(tree, name="shadow"))


def run_shadows(config: Config, count: int, *, seed: int, protected: bool = True) -> Shadows:
    """Run shadow federations, one after the other.

    Args:
        config: The run's, resolved.
        count: m.
        seed: Of all of them.
        protected: See `make_shadow_config`.

    Raises:
        FedtrainError: One of them cannot be run.
    """
    margins, joined = [], []
    rows = np.empty(0, np.int64)
    for index in range(count):
        own = derive_seed(seed, "shadow", index) >> 1
        shadow = make_shadow_config(config, own, protected=protected)
        with tempfile.TemporaryDirectory(prefix="fedtrain-shadow-") as folder:
            run = start(open_config(shadow), Path(folder) / "run")
            simulate(run, Silence())
            one = measure_records(run.path, run.config)
        if not index:
            rows = _choose(len(one[0]), seed)
        margins.append(one[0][rows])
        joined.append(one[1][rows])
    return Shadows(np.stack(margins), np.stack(joined), rows)


def measure_records(run: Path, config: Config) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the margin of every record under a run's model, and which it was trained on.

    Args:
        run: A finished run directory.
        config: Its resolved config, with the data's path.

    Returns:
        Margins `(n,)`, 0 for a record that the run left out as unusable, and membership `(n,)`.

    Raises:
        FedtrainError: Model or data cannot be read.
    """
    saved = load_saved_model(run, allowed_functions=(config.model.name,))
    preparation = Preparation.from_json(dict(saved.preparation))
    shards = Shards.open(config, strict=True)
    margins = np.zeros(shards.count_records())
    joined = np.zeros(shards.count_records(), np.bool_)
    for site in range(len(shards)):
        shard = shards.load(site, preparation)
        rows = shards.find_rows(site, preparation)
        for split, own in zip(
            (shard.train, shard.validation, shard.test), rows.get_parts(), strict=True
        ):
            margins[own] = _measure(saved.model, split)
        joined[rows.train] = True
    return margins, joined


def _measure(model: torch.nn.Module, split: Split) -> NDArray[np.float64]:
    """Return the margins of a split's records, `(n,)`."""
    parts: list[Any] = [np.empty(0)]
    with torch.no_grad():
        for begin in range(0, len(split), _BATCH):
            features = torch.from_numpy(split.features[begin : begin + _BATCH])
            logits = model(features).numpy().astype(np.float64)
            parts.append(compute_margins(logits, split.labels[begin : begin + _BATCH]))
    return np.concatenate(parts)


def _is_summed(tree: dict[str, Any]) -> bool:
    """Say whether noise is inside the sum, so that it takes one."""
    return str(tree["privacy"]["unit"]).endswith("site")


def _choose(records: int, seed: int) -> NDArray[np.int64]:
    """Return which records are looked at: all, or as many of them as are enough."""
    if records <= MAX_RECORDS:
        return np.arange(records)
    generator = np.random.default_rng(derive_seed(seed, "records"))
    return np.sort(generator.choice(records, MAX_RECORDS, replace=False))

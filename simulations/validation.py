"""Cross-validation: several simulations of one scenario, each tested on what it did not train on.

* folds: each site's records are dealt to k test sets; run i trains on the others at every site;
* leave one site out: run i goes without site i, and its model is tested on all of that site;
* hold out a site: one such run.

The held-out site's metrics are computed at that site, on its own. Everything else goes through the
scenario's own aggregation.
"""

import json
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fedtrain.config import Config, build_config, load_config
from fedtrain.data.preparation import Preparation
from fedtrain.data.shards import Shards, Split
from fedtrain.errors import ConfigError
from fedtrain.models.saved import load_saved_model
from fedtrain.params import ModelState
from fedtrain.plan import sends_metrics
from fedtrain.privacy.accounting import PrivacyCost
from fedtrain.resolution import resolve
from fedtrain.scenarios import find_scenario
from fedtrain.training.local import LocalTrainer

from .opening import open_config
from .simulate import Display, simulate, start
from .sweep_study import compute_joint_costs, list_events, list_site_events

MAX_FOLDS: Final = 100
_TEST: Final = "test_"


@dataclass(frozen=True)
class Part:
    """One of the runs.

    Attributes:
        name: `fold 1`, or the site that is left out.
        config: Resolved.
        held_out: The site that it is tested on; None: each site tests on its fold.
    """

    name: str
    config: Config
    held_out: str | None = None


@dataclass(frozen=True)
class Tested:
    """What one run's model did on what it had not seen; metric by name, without `test_`."""

    name: str
    path: Path
    metrics: dict[str, float]


@dataclass(frozen=True)
class Validation:
    """All runs of a cross-validation.

    Attributes:
        tested: One a run.
        means: Of each metric over the runs.
        deviations: Standard deviation over the runs (n - 1); of one run there is none.
        costs: What all runs together cost, of each unit that is protected; none without privacy.
    """

    tested: tuple[Tested, ...]
    means: dict[str, float]
    deviations: dict[str, float]
    costs: tuple[PrivacyCost, ...]


def plan_folds(config: Config, folds: int) -> list[Part]:
    """Return the runs of a k-fold cross-validation inside every site.

    Raises:
        ConfigError: The number is out of its range, or the runs would send no metrics.
    """
    if not 2 <= folds <= MAX_FOLDS:
        raise ConfigError(f"--folds {folds} is not between 2 and {MAX_FOLDS}; 5 is usual")
    _verify_metrics(config)
    if config.data.central_test:
        raise ConfigError(
            "data.central_test = true tests on records of no site; set it to false, or leave sites"
            " out"
        )
    return [
        Part(
            f"fold {fold + 1}",
            _change(config, "data", folds=folds, fold=fold, central_test=False),
        )
        for fold in range(folds)
    ]


def plan_sites(config: Config, names: Sequence[str] | None = None) -> list[Part]:
    """Return the runs that each go without one site.

    Args:
        config: The resolved config.
        names: The sites that are left out in turn; by default all.

    Raises:
        ConfigError: There is no such site, too few are left, or metrics are suppressed.
    """
    _verify_metrics(config)
    known = Shards.open(config, strict=True).site_names
    chosen = known if names is None else tuple(names)
    for name in chosen:
        if name not in known:
            raise ConfigError(
                f"there is no site {name!r} to hold out; known here: {', '.join(known[:20])}"
            )
    return [
        Part(name, _change(config, "partition", sites=len(known) - 1, leave_out=(name,)), name)
        for name in chosen
    ]


def open_base(name_or_path: str, overrides: Iterable[str] = ()) -> Config:
    """Load and resolve the scenario that is validated."""
    return resolve(load_config(find_scenario(name_or_path), overrides))


def validate(
    parts: Sequence[Part],
    base: Config,
    folder: Path,
    display: Display,
    *,
    announce: Callable[[str], None] | None = None,
) -> Validation:
    """Run all parts, one after the other, and test each.

    Args:
        parts: From `plan_folds` or `plan_sites`; all are opened before the first is run.
        base: The scenario's own config, with every site.
        folder: Where the run directories go; must not hold any yet.
        display: Shows each run's progress.
        announce: Told in words which run begins.

    Raises:
        ConfigError: The folder is not empty.
        FedtrainError: A part cannot run.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} exists and is not empty; choose another --out")
    opened = [open_config(part.config) for part in parts]
    whole = Shards.open(base, strict=True) if parts and parts[0].held_out else None
    tested = []
    for number, (part, one) in enumerate(zip(parts, opened, strict=True), start=1):
        if announce is not None:
            announce(f"run {number} of {len(parts)}: tested on {part.name}")
        run = start(one, folder / f"{number:03d}")
        simulate(run, display)
        if part.held_out is None or whole is None:
            metrics = _read_chosen(run.read_metrics(), run.state.best_round)
        else:
            metrics = test_on_site(run.path, one.config, whole, part.held_out)
        tested.append(Tested(part.name, run.path, metrics))
    means, deviations = summarise([one.metrics for one in tested])
    return Validation(tuple(tested), means, deviations, compute_validation_costs(parts))


def compute_validation_costs(parts: Sequence[Part]) -> tuple[PrivacyCost, ...]:
    """Return what all runs together cost, of each unit that is protected.

    A record is trained on in every run but the one that tests on it, and so is a site that is left
    out in turn. Under site-level privacy folds train at every site in every run.
    """
    several, held_out = len(parts) > 1, parts[0].held_out is not None
    records = [event for part in parts[int(several) :] for event in list_events(part.config)]
    spared = int(several and held_out)
    sites = [event for part in parts[spared:] for event in list_site_events(part.config)]
    return compute_joint_costs(parts[0].config, records, sites, runs=len(parts) - spared)


def test_on_site(path: Path, config: Config, shards: Shards, name: str) -> dict[str, float]:
    """Return the metrics of a run's model on all records of a site that it did not see.

    Args:
        path: The run directory.
        config: The run's config.
        shards: Of the scenario with every site.
        name: The site.
    """
    saved = load_saved_model(path, allowed_functions=[config.model.name])
    preparation = Preparation.from_json(dict(saved.preparation))
    shard = shards.load(shards.site_names.index(name), preparation)
    trainer = LocalTrainer(saved.model, config)
    vector = ModelState(saved.model).read()
    total = None
    for split in _list_splits(shard.train, shard.validation, shard.test):
        sums = trainer.evaluate(vector, split)
        total = sums if total is None else total + sums
    return {} if total is None else _keep_finite(total.describe())


def summarise(rows: Sequence[dict[str, float]]) -> tuple[dict[str, float], dict[str, float]]:
    """Return mean and standard deviation (n - 1) of each metric that every run has."""
    names = [name for name in rows[0] if all(name in row for row in rows)] if rows else []
    means = {name: statistics.fmean(row[name] for row in rows) for name in names}
    if len(rows) < 2:
        return means, {}
    return means, {name: statistics.stdev(row[name] for row in rows) for name in names}


def _verify_metrics(config: Config) -> None:
    if not sends_metrics(config):
        raise ConfigError(
            "privacy.metrics = 'suppressed': no run would have a metric to compare; set"
            " privacy.metrics = 'uncovered' (no guarantee covers them then)"
        )


def _change(config: Config, section: str, **values: Any) -> Config:
    tree = json.loads(config.model_dump_json(exclude_none=True))
    tree[section] |= values
    return build_config(tree)


def _list_splits(*splits: Split) -> Iterator[Split]:
    return (split for split in splits if len(split.labels))


def _read_chosen(lines: Sequence[dict[str, Any]], best: int | None) -> dict[str, float]:
    """Return the test metrics of the model that the run chose, else its last ones."""
    for line in [*lines, *(line for line in lines if line["round"] == best)][::-1]:
        found = {key.removeprefix(_TEST): v for key, v in line.items() if key.startswith(_TEST)}
        if found:
            return _keep_finite(found)
    return {}


def _keep_finite(metrics: dict[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in metrics.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }

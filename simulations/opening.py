"""What is tried before a run: its data, preparation, model and strategy.

What cannot run is found here, with the reason in full (on one machine the operator owns the data
too), and before anything is written.
"""

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from fedtrain.aggregation import build_evaluation_encoding
from fedtrain.attackers import choose_attackers
from fedtrain.config import Config, build_config, load_config
from fedtrain.data.preparation import Preparation
from fedtrain.data.shards import Shards
from fedtrain.errors import ConfigError
from fedtrain.local_layers import find_local_layers
from fedtrain.models.start import build_start_model
from fedtrain.params import Layout
from fedtrain.resolution import resolve, verify_update_bound
from fedtrain.scenarios import find_scenario
from fedtrain.statistics.preparing import fit_in_clear
from fedtrain.training.losses import verify_class_weights
from fedtrain.training.trial import verify_trainable
from fedtrain.training_vector import TrainingVector

from .audit_stage import verify_audit
from .loading import load_app, refer_to_sibling

# Warnings about sites belong in the run's log, which does not exist yet: not on standard error.
logging.getLogger("fedtrain").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Opened:
    """A config that can run, as far as that can be told before it does.

    Attributes:
        config: Resolved, with the number of sites.
        fingerprint: Digest of data and partition.
        preparation: As the coordinator will fit it.
        size: Length of the flat parameter vector.
    """

    config: Config
    sites: int
    fingerprint: str
    preparation: Preparation
    size: int


def open_scenario(name_or_path: str, overrides: Iterable[str] = ()) -> Opened:
    """Load and resolve a scenario and try it; see `open_config`."""
    return open_config(resolve(load_config(find_scenario(name_or_path), overrides)))


def open_config(config: Config) -> Opened:
    """Open a resolved config's data once; the number of sites becomes part of the config.

    Raises:
        ConfigError: The config cannot run.
        DataError: The data cannot be used; says at which site.
    """
    shards = Shards.open(config, strict=True)  # the operator owns the data, and is told
    checked = _settle_sites(config, len(shards))
    _verify_strategy(checked, len(shards))
    if checked.attackers is not None:
        choose_attackers(checked.attackers, shards.site_names, seed=checked.run.seed)
    verify_audit(checked)
    preparation = fit_in_clear(shards, checked)
    verify_class_weights(checked.training, len(preparation.label_names))
    size = _verify_model(checked, preparation)
    _verify_ring(checked, size, classes=len(preparation.label_names))
    _verify_central_test(shards, checked, preparation)
    return Opened(checked, len(shards), shards.compute_fingerprint(), preparation, size)


def _settle_sites(config: Config, sites: int) -> Config:
    partition = config.partition.model_copy(update={"sites": sites})
    settled = config.model_copy(update={"partition": partition})
    # Checked again: a cohort larger than a natural partition shows only now.
    return build_config(json.loads(settled.model_dump_json(exclude_none=True)))


def _verify_strategy(config: Config, sites: int) -> None:
    federation = config.federation
    build = load_app(refer_to_sibling("server.strategies:build_strategy"))
    build(federation, learning_rate=config.training.learning_rate)
    check = load_app(refer_to_sibling("server.strategies:check_cohort"))
    check(federation, min(federation.sites_per_round or sites, sites))
    if federation.min_survivors > sites:
        raise ConfigError(
            f"federation.min_survivors = {federation.min_survivors} is above the number of sites,"
            f" {sites}; lower it"
        )


def _verify_model(config: Config, preparation: Preparation) -> int:
    """Build the start model as the coordinator will, and return its size."""
    model = build_start_model(
        config,
        input_shape=preparation.input_shape,
        classes=preparation.outputs,
        input_dtype=torch.int64 if preparation.is_discrete else torch.float32,
    )
    verify_trainable(
        model,
        config,
        input_shape=preparation.input_shape,
        is_discrete=preparation.is_discrete,
    )
    layout, own = Layout.of(model), config.personalisation
    if own is not None and own.local_layers:
        find_local_layers(layout, own.local_layers)
    return layout.size


def _verify_ring(config: Config, size: int, *, classes: int) -> None:
    """Prove that no secure sum can wrap around its ring."""
    if config.secure_aggregation.mode == "off":
        return
    sites = config.partition.sites or 0
    cohort = config.federation.sites_per_round or sites
    TrainingVector(config, size=size, cohort=cohort)
    verify_update_bound(config, size=size)
    build_evaluation_encoding(config, classes=classes, cohort=sites)


def _verify_central_test(shards: Shards, config: Config, preparation: Preparation) -> None:
    data = config.data
    if data.central_test and shards.load_central_test(preparation) is None and data.source != "idx":
        raise ConfigError(
            f"data.central_test = true, but data.source = {data.source!r} has no test set of its"
            " own here; remove it, each site tests on data.test_fraction of its records"
        )

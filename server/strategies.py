"""Flower's strategies by name, their options checked, their state saved and restored."""

import inspect
from collections.abc import Mapping
from typing import Any, Final, cast

import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from fedtrain.config import (
    AVERAGING_STRATEGIES,
    DEFAULT_PROXIMAL_MU,
    STRATEGIES,
    FederationSection,
)
from fedtrain.errors import ConfigError
from fedtrain.protocol import ARRAYS, CONFIG, PARAMETERS, WEIGHT

from .corrected import Nova, Scaffold

# What a strategy carries from round to round.
_STATE: Final = ("momentum_vector", "m_t", "v_t", "control")
# Strategies that Flower does not have.
_OWN: Final = {"SCAFFOLD": Scaffold, "FedNova": Nova}
# What fedtrain decides itself: the cohort, and what records are called.
_FIXED: Final = {
    "fraction_train": 1.0,
    "fraction_evaluate": 1.0,
    "min_train_nodes": 1,
    "min_evaluate_nodes": 1,
    "min_available_nodes": 1,
    "weighted_by_key": WEIGHT,
    "arrayrecord_key": ARRAYS,
    "configrecord_key": CONFIG,
}
_OURS: Final = (*_FIXED, "train_metrics_aggr_fn", "evaluate_metrics_aggr_fn", "train_loss_key")


def list_options(name: str) -> dict[str, object]:
    """Return a strategy's own parameters and their defaults, by Flower's names."""
    if name in _OWN:
        return {}
    parameters = inspect.signature(getattr(flower, name).__init__).parameters
    return {
        key: parameter.default
        for key, parameter in parameters.items()
        if key not in ("self", *_OURS, "selection_rule")
    }


def build_strategy(
    section: FederationSection, *, learning_rate: float, steps: int = 1, sites: int = 1
) -> FedAvg:
    """Return the Flower strategy that a config names.

    Args:
        section: The config's `federation`.
        learning_rate: The sites' learning rate, which QFedAvg needs as its own default.
        steps: Local steps, for SCAFFOLD.
        sites: Sites of the run, likewise.

    Raises:
        ConfigError: An option that the strategy does not have, or a value that it refuses.
    """
    name = section.strategy
    known = list_options(name)
    options: dict[str, Any] = dict(section.strategy_options)
    for key in options:
        if key not in known:
            raise ConfigError(
                f"federation.strategy_options.{key}: {name} has no such parameter;"
                f" it has {', '.join(sorted(known)) or 'none'}"
            )
    if name == "QFedAvg":
        options.setdefault("client_learning_rate", learning_rate)
    if name == "FedProx":
        options.setdefault("proximal_mu", DEFAULT_PROXIMAL_MU)
    if name == "SCAFFOLD":
        options |= {"sites": sites, "steps": steps, "learning_rate": learning_rate}
    try:
        make = _OWN[name] if name in _OWN else getattr(flower, name)
        strategy = make(**_FIXED, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"federation.strategy_options = {options}: {name} refuses: {error}"
        ) from error
    return cast("FedAvg", strategy)


def check_cohort(section: FederationSection, cohort: int) -> None:
    """Refuse a strategy whose step is not defined for so few sites.

    Raises:
        ConfigError: Bulyan needs 4f + 3 updates, Krum and MultiKrum 2f + 3 (Blanchard et al.
            2017; El Mhamdi et al. 2018).
    """
    malicious = int(section.strategy_options.get("num_malicious_nodes", 0))
    needed = {
        "Bulyan": 4 * malicious + 3,
        "Krum": 2 * malicious + 3,
        "MultiKrum": 2 * malicious + 3,
    }
    bound = needed.get(section.strategy, 1)
    if cohort < bound:
        raise ConfigError(
            f"federation.strategy = '{section.strategy}' with num_malicious_nodes = {malicious}"
            f" needs at least {bound} sites a round, there are {cohort}; raise the number of sites"
            " or lower num_malicious_nodes"
        )


def needs_average_only(name: str) -> bool:
    """Return whether a strategy works on the weighted average of a round alone."""
    if name not in STRATEGIES:
        raise ConfigError(f"federation.strategy = '{name}' is none of {', '.join(STRATEGIES)}")
    return name in AVERAGING_STRATEGIES


def read_state(strategy: FedAvg) -> dict[str, NDArray[Any]]:
    """Return what a strategy carries over, as named arrays for the checkpoint."""
    state: dict[str, NDArray[Any]] = {}
    for name in _STATE:
        value = getattr(strategy, name, None)
        if isinstance(value, Mapping):
            value = value[PARAMETERS]
        elif isinstance(value, list):
            (value,) = value
        if value is not None:
            state[f"strategy.{name}"] = np.asarray(value)
    return state


def restore_state(strategy: FedAvg, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Give a fresh strategy back what `read_state` returned."""
    for name in _STATE:
        array = arrays.get(f"strategy.{name}")
        if array is None:
            continue
        wrapped: Any = array if name == "control" else {PARAMETERS: array}
        setattr(strategy, name, [array] if name == "momentum_vector" else wrapped)


def read_vector(record: ArrayRecord) -> NDArray[np.float32]:
    """Return a strategy's result as a float32 vector `(d,)`; some of them return float64."""
    return record[PARAMETERS].numpy().astype(np.float32, copy=False)

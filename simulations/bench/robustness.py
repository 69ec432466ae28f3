"""What rules of aggregation do against sites that attack the training.

Digits at eleven sites with unlike data, two of which attack; every attack against every defence,
one short run each. Rules that look at single updates need secure aggregation off; beside it there
is the bound on a site's update, which the site's own client holds it to.
"""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fedtrain.config import Config, build_config
from fedtrain.resolution import resolve

from ..opening import open_config
from ..progress import Silence
from ..simulate import simulate, start

SITES: Final = 11
ATTACKERS: Final = 2  # Bulyan needs 4 f + 3 sites
ROUNDS: Final = 15
BOUND: Final = 4.0  # no honest update here is beyond it
_MALICIOUS: Final = {"num_malicious_nodes": ATTACKERS}

ATTACKS: Final[Mapping[str, Mapping[str, Any] | None]] = {
    "none": None,
    "label_flip": {"kind": "label_flip"},
    "sign_flip x 3": {"kind": "sign_flip", "factor": 3.0},
    "scaling x 20": {"kind": "scaling", "factor": 20.0},
}


@dataclass(frozen=True)
class Defence:
    """A rule of aggregation.

    Attributes:
        strategy: Flower's, by name.
        options: Its own.
        bound: `max_update_norm` of the secure sum; None where secure aggregation must be off.
    """

    strategy: str
    options: Mapping[str, Any]
    bound: float | None


DEFENCES: Final[Mapping[str, Defence]] = {
    "average": Defence("FedAvg", {}, 1e4),
    f"average, bound {BOUND:g}": Defence("FedAvg", {}, BOUND),
    "median": Defence("FedMedian", {}, None),
    "trimmed mean": Defence("FedTrimmedAvg", {"beta": 0.2}, None),
    "Krum": Defence("Krum", _MALICIOUS, None),
    "Bulyan": Defence("Bulyan", _MALICIOUS, None),
}


@dataclass(frozen=True)
class Outcome:
    """How a defence did against an attack: the global model's accuracy on all sites' test records.

    Attributes:
        survivors: Sites whose update the last round used, before the rule chose among them.
    """

    defence: str
    attack: str
    accuracy: float
    survivors: int


def measure_robustness(rounds: int = ROUNDS) -> Iterator[Outcome]:
    """Run every attack against every defence; yield each outcome as it is known."""
    for name, defence in DEFENCES.items():
        for attack, section in ATTACKS.items():
            config = build_case(defence, section, rounds=rounds)
            line = _run(config)
            yield Outcome(name, attack, line["test_accuracy"], line["survivors"])


def build_case(defence: Defence, attack: Mapping[str, Any] | None, *, rounds: int) -> Config:
    """Return the config of one case."""
    secure: dict[str, Any] = {"mode": "off"}
    if defence.bound is not None:
        # The sum of "protocol" to the byte, without its keys.
        secure = {"mode": "arithmetic", "max_update_norm": defence.bound}
    tree: dict[str, Any] = {
        "run": {"name": "robustness"},
        "data": {"source": "sklearn:digits", "validation_fraction": 0.0},
        "partition": {"scheme": "dirichlet", "sites": SITES, "alpha": 1.0},
        "model": {"name": "mlp", "hidden": [32]},
        "training": {"learning_rate": 0.1, "local_epochs": 2, "batch_size": 16},
        "federation": {
            "strategy": defence.strategy,
            "strategy_options": dict(defence.options),
            "rounds": rounds,
            "weighting": "equal",
            "evaluate_every": 0,
        },
        "secure_aggregation": secure,
    }
    if attack is not None:
        tree["attackers"] = {"share": ATTACKERS / SITES, **attack}
    return resolve(build_config(tree))


def _run(config: Config) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        run = start(open_config(config), Path(folder) / "run")
        simulate(run, Silence())
        line: dict[str, Any] = run.read_metrics()[-1]
    return line

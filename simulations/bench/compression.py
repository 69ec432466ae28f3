"""What fewer bytes a round, and smaller models, cost in accuracy.

The shipped scenario `digits_compressed`, once without its section and once with each of its parts
alone, by the whole protocol: the bytes are those that the coordinator counts.
"""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fedtrain.config import Config, build_config, load_config, to_tree
from fedtrain.resolution import resolve
from fedtrain.scenarios import list_scenarios

from ..opening import open_config
from ..progress import Silence
from ..simulate import simulate, start

_SCENARIO: Final = "digits_compressed"
_BOUND: Final = {"largest_coordinate": 0.2}

CASES: Final[Mapping[str, Mapping[str, Any] | None]] = {
    "nothing": None,
    "updates of 16 bits": {"update_bits": 16, **_BOUND},
    "updates of 8 bits": {"update_bits": 8, **_BOUND},
    "updates of 4 bits": {"update_bits": 4, **_BOUND},
    "50 % of coordinates": {"keep_share": 0.5},
    "10 % of coordinates": {"keep_share": 0.1},
    "80 % pruned": {"prune_share": 0.8},
    "weights of 8 bits": {"quantise_training": 8},
    "4 bits, 50 %, 80 % pruned, 8 bits": {
        "update_bits": 4,
        "keep_share": 0.5,
        "prune_share": 0.8,
        "quantise_training": 8,
        **_BOUND,
    },
}


@dataclass(frozen=True)
class Compressed:
    """What one case came to.

    Attributes:
        case: Its name.
        accuracy: Of the last model, on all sites' test records.
        bytes_up: What all sites sent in a round of training that was not followed by a test.
        seconds: Of the whole run.
    """

    case: str
    accuracy: float
    bytes_up: int
    seconds: float


def measure_compression(rounds: int | None = None) -> Iterator[Compressed]:
    """Run every case; yield each outcome as it is known.

    Args:
        rounds: Of each run, at least 2; default: the scenario's.
    """
    for case, section in CASES.items():
        lines = _run(build_case(section, rounds=rounds))
        seconds = sum(line["seconds"] for line in lines)
        yield Compressed(case, lines[-1]["test_accuracy"], lines[0]["bytes_up"], seconds)


def build_case(section: Mapping[str, Any] | None, *, rounds: int | None) -> Config:
    """Return the config of one case; all weigh sites alike."""
    tree = to_tree(load_config(list_scenarios()[_SCENARIO]))
    del tree["compression"]
    tree["federation"]["weighting"] = "equal"
    tree["federation"]["evaluate_every"] = 0
    if rounds is not None:
        tree["federation"]["rounds"] = rounds
    if section is not None:
        tree["compression"] = dict(section)
    return resolve(build_config(tree))


def _run(config: Config) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        run = start(open_config(config), Path(folder) / "run")
        simulate(run, Silence())
        return run.read_metrics()

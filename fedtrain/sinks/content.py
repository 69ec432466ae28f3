"""What a sink is given of a run: points by round, the config flat, what to know of it, its files.

What sites wrote down of themselves (`sites.json`, `sites/`) is none of it.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from fedtrain.errors import RunDirectoryError
from fedtrain.report.privacy import describe_privacy
from fedtrain.report.run import Run, to_finite

FILES: Final = (
    *("config.toml", "environment.json", "model.json", "model.safetensors"),
    *("report.html", "report.json", "model_card.md"),
)
MODEL: Final = "model.safetensors"


@dataclass(frozen=True)
class Point:
    """One figure of one round.

    Attributes:
        key: Its name in `metrics.jsonl`.
        round: The round.
        value: A finite number.
        time: When the round ended, in seconds since 1970: the run's start and the seconds of its
            rounds together, and so too early where the run stood still in between.
    """

    key: str
    round: int
    value: float
    time: float


def list_points(run: Run, *, after: int = 0) -> list[Point]:
    """Return the finite figures of the rounds after one, in order."""
    points, time = [], _read_start(run)
    for line in run.metrics:
        number = int(line["round"])
        time += to_finite(line.get("seconds")) or 0.0
        found = ((key, to_finite(value)) for key, value in line.items() if key != "round")
        points += [Point(key, number, value, time) for key, value in found if value is not None]
    return [point for point in points if point.round > after]


def flatten_config(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return the values of nested tables by their dotted names; what is not text is JSON."""
    flat: dict[str, str] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten_config(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value if isinstance(value, str) else json.dumps(value)
    return flat


def describe_run(run: Run) -> dict[str, str]:
    """Return what is to be known of a run wherever its figures are: whose they are, and privacy.

    Returns:
        The run's id, digest of config, statement on privacy, versions, and fingerprint of the data;
        what the directory does not say is left out.

    Raises:
        RunDirectoryError: `environment.json` is damaged.
    """
    environment = _read_environment(run.path / "environment.json")
    told = {
        "run_id": run.state.get("run_id"),
        "config_digest": run.state.get("digest"),
        "privacy": describe_privacy(run),
        "data_fingerprint": environment.get("data_fingerprint"),
        "git_commit": environment.get("git_commit"),
        "version": dict(environment.get("versions") or {}).get("fedtrain"),
    }
    return {name: str(value) for name, value in told.items() if value}


def list_files(path: Path) -> list[Path]:
    """Return those of `FILES` that a run directory has."""
    return [path / name for name in FILES if (path / name).is_file()]


def clean_name(name: str) -> str:
    """Return a name in letters, digits and `_-. :/`, which every sink takes."""
    return re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)


def _read_start(run: Run) -> float:
    try:
        return datetime.fromisoformat(str(run.state.get("started"))).timestamp()
    except ValueError:
        return 0.0


def _read_environment(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        raise RunDirectoryError(f"{path}: damaged ({error}); restore it") from error

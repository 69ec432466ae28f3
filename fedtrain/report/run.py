"""A run directory, read: finished, stopped, still going, or killed at any moment.

Reading never fails on what a kill can leave behind: a torn last line of `metrics.jsonl`, a
missing `state.json` or `sites.json`. What no kill leaves behind (a damaged line before the last,
a state that is not JSON) is an error.
"""

import fcntl
import json
import math
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fedtrain.errors import RunDirectoryError

UTILITIES: Final = (
    *("test_accuracy", "val_accuracy", "test_auc", "test_r2", "val_r2", "test_loss", "val_loss"),
)


@dataclass(frozen=True)
class Run:
    """What a run directory says.

    Attributes:
        path: The directory.
        config: The resolved config as nested dicts.
        state: What `state.json` holds; empty where the run was killed before its first commit.
        metrics: One flat dict a round, in order.
        sites: One dict a site, of the last evaluation; empty where there was none. With secure
            aggregation a site's metrics are its own, of the round in `test_round`.
        held: Whether a process holds the directory's lock; None where that cannot be told.
        roster: What `roster.json` holds; empty without secure aggregation.
    """

    path: Path
    config: dict[str, Any]
    state: dict[str, Any]
    metrics: list[dict[str, Any]]
    sites: list[dict[str, Any]]
    held: bool | None = None
    roster: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name the config gives, or the folder's."""
        return str(self.config.get("run", {}).get("name", self.path.name))

    @property
    def status(self) -> str:
        """The state's status; `killed` where it says `running` but no process holds the lock."""
        status = str(self.state.get("status", "unknown"))
        return "killed" if status == "running" and self.held is False else status

    @property
    def rounds_done(self) -> int:
        """Rounds committed."""
        last = self.metrics[-1]["round"] if self.metrics else 0
        return int(self.state.get("round", last))

    @property
    def rounds_wanted(self) -> int:
        """Rounds of the whole run; 0 where unknown."""
        planned = self.config.get("federation", {}).get("rounds", 0)
        return int(self.state.get("rounds", planned))

    def get_last(self, key: str) -> float | None:
        """Return the last finite value of a metric; None where there is none."""
        return next((value for _, value in reversed(self.get_series(key))), None)

    def get_at(self, key: str, number: int | None) -> float | None:
        """Return a metric of one round; None where it is missing or not finite."""
        return next((value for at, value in self.get_series(key) if at == number), None)

    def get_series(self, key: str) -> list[tuple[int, float]]:
        """Return (round, value) of each round that has a finite value of this metric."""
        found = ((int(line["round"]), to_finite(line.get(key))) for line in self.metrics)
        return [(number, value) for number, value in found if value is not None]

    def find_utility(self) -> str | None:
        """Return the metric that speaks for the run: the first of `UTILITIES` that it has."""
        return next((key for key in UTILITIES if self.get_series(key)), None)


def load_run(path: Path) -> Run:
    """Read a run directory.

    Args:
        path: The directory.

    Returns:
        The run, as far as it got.

    Raises:
        RunDirectoryError: There is no such directory, it is not a run, or a file is damaged.
    """
    _require_run(path)
    try:
        config = tomllib.loads((path / "config.toml").read_text(encoding="utf-8"))
        state = _load_json(path / "state.json", {})
        sites = _load_sites(path)
        roster = _load_json(path / "roster.json", {})
        metrics = _load_metrics(path / "metrics.jsonl")
    except OSError as error:
        raise RunDirectoryError(f"{error.filename}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RunDirectoryError(f"{path / 'config.toml'}: damaged ({error})") from error
    committed = state.get("round")
    if committed is not None:  # a line beyond it is cut off again on resume
        metrics = [line for line in metrics if line["round"] <= committed]
    held = _is_held(path / "checkpoint" / "lock")
    return Run(path, config, state, metrics, sites, held, roster)


def find_run(text: str) -> Run:
    """Read the run in a folder, or, where there is none, in the folder of that name in `runs`.

    Raises:
        RunDirectoryError: See `load_run`.
    """
    return load_run(find_path(text))


def find_path(text: str) -> Path:
    """Return the run directory that a text names; see `find_run`."""
    path, default = Path(text), Path("runs") / text
    found = default if not is_run(path) and is_run(default) else path
    _require_run(found)
    return found


def find_runs(folder: Path) -> list[Path]:
    """Find run directories: the folder itself, its children and its grandchildren.

    Raises:
        RunDirectoryError: There is no such folder, or no run in it.
    """
    if not folder.is_dir():
        raise RunDirectoryError(
            f"{folder}: no such folder; fedtrain simulate digits makes a first run in runs/"
        )
    if is_run(folder):
        return [folder]
    paths = [file.parent for depth in ("*", "*/*") for file in folder.glob(f"{depth}/config.toml")]
    if not paths:
        raise RunDirectoryError(
            f"{folder}: no runs in it; fedtrain simulate digits makes a first one in runs/"
        )
    return sorted(paths)


def is_run(path: Path) -> bool:
    """Say whether a path is a run directory."""
    return (path / "config.toml").is_file()


def _require_run(path: Path) -> None:
    if not is_run(path):
        problem = "not a run directory (no config.toml)" if path.is_dir() else "no such run"
        raise RunDirectoryError(f"{path}: {problem}; fedtrain runs [DIR] lists what there is")


def to_finite(value: Any) -> float | None:
    """Return a finite number as float; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _is_held(lock: Path) -> bool | None:
    """Say whether another process holds a lock file; None where that cannot be told."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def _load_json(path: Path, default: Any) -> Any:
    if not path.exists():
        return default
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunDirectoryError(f"{path}: damaged ({error})") from error
    if not isinstance(value, type(default)):
        raise RunDirectoryError(f"{path}: damaged (not a {type(default).__name__})")
    return value


def _load_sites(path: Path) -> list[dict[str, Any]]:
    """Read what the coordinator knows of each site, and what sites wrote down of themselves.

    With secure aggregation a site's own metrics are in a file of its own, not in `sites.json`.
    """
    known: list[dict[str, Any]] = _load_json(path / "sites.json", [])
    own: dict[str, dict[str, Any]] = {}
    for file in sorted((path / "sites").glob("*.json")):
        tree = _load_json(file, {})
        if "site" not in tree or "round" not in tree:
            raise RunDirectoryError(f"{file}: damaged (no site or round)")
        kept = ("test_", "own_", "group")
        metrics = {key: value for key, value in tree.items() if key.startswith(kept)}
        own[str(tree["site"])] = {"test_round": tree["round"]} | metrics
    merged = [site | own.pop(str(site.get("site")), {}) for site in known]
    return merged + [{"site": name} | metrics for name, metrics in own.items()]


def _load_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the lines by round; a round that was run again after a kill counts once, as it ended."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    rounds: dict[int, dict[str, Any]] = {}
    for number, text in enumerate(lines, start=1):
        try:
            line = json.loads(text)
            rounds[int(line["round"])] = line
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):  # torn by a kill
                break
            raise RunDirectoryError(f"{path}: line {number} is damaged ({error})") from error
    return [rounds[number] for number in sorted(rounds)]

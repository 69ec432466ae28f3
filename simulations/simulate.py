"""A whole federation on this machine: a ServerApp and many ClientApps over the in-process grid."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

import torch

from fedtrain.config import Config, build_config, compute_digest, load_config, parse_config, to_toml
from fedtrain.data.shards import Shards
from fedtrain.errors import AuditError, FedtrainError, RunDirectoryError
from fedtrain.journal import stop_log, write_log_to
from fedtrain.plan import resolve
from fedtrain.runs import RunDirectory
from fedtrain.scenarios import find_scenario

from .flower import COORDINATOR_NODE_ID, make_context
from .grid import InProcessGrid
from .loading import load_app, refer_to_sibling

CLIENT_APP = refer_to_sibling("clients.app:app")
MAKE_SERVER_APP = refer_to_sibling("server.app:make_app")


class Display(Protocol):
    """Shows a run's progress."""

    def on_start(self, *, rounds: int, done: int, sites: int) -> None:
        """The rounds begin."""

    def on_round(self, metrics: dict[str, float | int]) -> None:
        """A round is committed."""

    def close(self) -> None:
        """The run has ended, one way or another."""


@dataclass(frozen=True)
class Opened:
    """A config whose data was looked at."""

    config: Config
    sites: int
    fingerprint: str


def open_scenario(name_or_path: str, overrides: Iterable[str] = ()) -> Opened:
    """Load and resolve a scenario and open its data once, to find what is wrong before a run.

    Raises:
        ConfigError: The config cannot run.
        DataError: The data cannot be used.
    """
    return open_config(resolve(load_config(find_scenario(name_or_path), overrides)))


def open_config(config: Config) -> Opened:
    """Open a resolved config's data once; the number of sites becomes part of the config."""
    shards = Shards.open(config)
    partition = config.partition.model_copy(update={"sites": len(shards)})
    # Checked again: a cohort larger than a natural partition shows only now.
    checked = build_config(
        json.loads(
            config.model_copy(update={"partition": partition}).model_dump_json(exclude_none=True)
        )
    )
    build = load_app(refer_to_sibling("server.strategies:build_strategy"))
    build(checked.federation, learning_rate=checked.training.learning_rate)
    return Opened(checked, len(shards), shards.compute_fingerprint())


def choose_path(config: Config, out: Path | None) -> Path:
    """Return where a new run goes: `--out`, or a folder of the run's name and the time."""
    if out is not None:
        return out
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path(config.run.directory) / f"{config.run.name}-{stamp}"


def start(opened: Opened, path: Path) -> RunDirectory:
    """Make a run directory for an opened scenario."""
    return RunDirectory.create(path, opened.config, fingerprint=opened.fingerprint)


def reopen(path: Path, scenario: str | None, overrides: Iterable[str] = ()) -> RunDirectory:
    """Open a run directory to go on with it.

    Args:
        path: The run directory.
        scenario: If given, must be what the run was started from.
        overrides: Changes; only those that do not change what is computed are possible.

    Raises:
        RunDirectoryError: The run is another config's.
        AuditError: The data or a file is not what it was.
    """
    run = RunDirectory.resume(path)
    if scenario is not None:
        wanted = open_scenario(scenario, overrides).config
    else:
        wanted = resolve(parse_config(to_toml(run.config), overrides, name=str(path)))
    if compute_digest(wanted) != run.state.digest:
        raise RunDirectoryError(
            f"{path} was started from another config (digest {run.state.digest[:12]}, now"
            f" {compute_digest(wanted)[:12]}); resume it without changes, or start anew with --out"
        )
    run.config = wanted
    opened = open_config(wanted)
    environment = json.loads((path / "environment.json").read_text(encoding="utf-8"))
    if environment.get("data_fingerprint") != opened.fingerprint:
        raise AuditError(
            f"{path}: the data is not what the run was started on (its fingerprint changed);"
            " restore it, or start anew with --out"
        )
    return run


def simulate(run: RunDirectory, display: Display) -> None:
    """Run a federation from its last commit to its end.

    Raises:
        FedtrainError: The run cannot go on; what was committed stays.
        KeyboardInterrupt: It was interrupted; what was committed stays.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    handler = write_log_to(run.path / "log.txt")
    sites = run.config.partition.sites or 0
    grid = InProcessGrid(
        CLIENT_APP, sites=sites, workers=run.config.simulation.workers, log=run.path / "log.txt"
    )
    app = load_app(MAKE_SERVER_APP)(run, display)
    try:
        run.mark_running()
        with grid:
            app(grid, make_context(COORDINATOR_NODE_ID, {}, {}))
    except KeyboardInterrupt:
        run.finish("stopped", "interrupted")
        raise
    except FedtrainError as error:
        _try_to_finish(run, str(error))
        raise
    finally:
        display.close()
        stop_log(handler)
        run.close()
        torch.set_num_threads(threads)


def _try_to_finish(run: RunDirectory, reason: str) -> None:
    """Write down that a run failed; where even that fails, the error that stopped it matters."""
    try:
        run.finish("failed", reason)
    except RunDirectoryError:
        return

"""A whole federation on this machine: a ServerApp and many ClientApps over the in-process grid."""

import logging
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Protocol

import torch

from fedtrain.config import Config, compute_digest, parse_config, to_toml
from fedtrain.data.shards import Shards
from fedtrain.errors import AuditError, FedtrainError, RunDirectoryError, RunFailedError
from fedtrain.journal import logging_to
from fedtrain.resolution import resolve
from fedtrain.runs import RunDirectory, Status

from .flower import COORDINATOR_NODE_ID, make_context
from .grid import InProcessGrid
from .loading import load_app, refer_to_sibling
from .metering import CostKeeper
from .opening import Opened, open_config, open_scenario

log = logging.getLogger("fedtrain.simulations")

CLIENT_APP = refer_to_sibling("clients.app:app")
FORGET_RUNS = refer_to_sibling("clients.runtime:forget_runs")
MAKE_FOLDERS = refer_to_sibling("clients.custody:make_folders")
MAKE_SERVER_APP = refer_to_sibling("server.app:make_app")


class Display(Protocol):
    """Shows a run's progress."""

    def on_start(self, *, rounds: int, done: int, sites: int) -> None:
        """The rounds begin."""

    def on_round(self, metrics: dict[str, float | int]) -> None:
        """A round is committed."""

    def close(self) -> None:
        """The run has ended, one way or another."""


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
    try:
        opened = _reopen_config(run, scenario, overrides)
        _verify_unchanged(run, opened)
    except BaseException:
        run.close()
        raise
    run.config = opened.config
    return run


def _reopen_config(run: RunDirectory, scenario: str | None, overrides: Iterable[str]) -> Opened:
    if scenario is not None:
        return open_scenario(scenario, overrides)
    wanted = resolve(parse_config(to_toml(run.config), overrides, name=str(run.path)))
    _verify_digest(run, wanted)  # before data of another config is looked for
    return open_config(wanted)


def _verify_digest(run: RunDirectory, config: Config) -> None:
    if compute_digest(config) != run.state.digest:
        raise RunDirectoryError(
            f"{run.path} was started from another config (digest {run.state.digest[:12]}, now"
            f" {compute_digest(config)[:12]}); resume it without changes, or start anew with --out"
        )


def _verify_unchanged(run: RunDirectory, opened: Opened) -> None:
    _verify_digest(run, opened.config)
    if run.read_fingerprint() != opened.fingerprint:
        raise AuditError(
            f"{run.path}: the data is not what the run was started on (its fingerprint changed);"
            " restore it, or start anew with --out"
        )


def simulate(run: RunDirectory, display: Display) -> None:
    """Run a federation from its last commit to its end; a finished run is left as it is.

    Raises:
        FedtrainError: The run cannot go on; what was committed stays.
        KeyboardInterrupt: It was interrupted; what was committed stays.
    """
    if run.state.status == "finished":
        run.close()
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _simulate(run, display)
    except KeyboardInterrupt:
        _try_to_finish(run, "stopped", "interrupted")
        raise
    except FedtrainError as error:
        _try_to_finish(run, "failed", str(error))
        raise
    except Exception as error:
        _try_to_finish(run, "failed", f"{type(error).__name__}; log.txt has the details")
        raise
    finally:
        display.close()
        run.close()
        torch.set_num_threads(threads)


def _simulate(run: RunDirectory, display: Display) -> None:
    load_app(FORGET_RUNS)()
    run.mark_running()
    path = run.path / "log.txt"
    sites, workers = run.config.partition.sites or 0, run.config.simulation.workers
    results = run.path / "sites"
    if run.config.secure_aggregation.mode != "off":
        with run.writing():
            results.mkdir(exist_ok=True)
    folder = run.config.simulation.sites_directory
    if folder is not None:
        load_app(MAKE_FOLDERS)(Path(folder), Shards.open(run.config).site_names)
    grid = InProcessGrid(
        CLIENT_APP,
        sites=sites,
        workers=workers,
        log=path,
        results=results,
        sites_directory=folder,
        kept=run.path / "kept",
    )
    with logging_to(path), grid:
        try:
            observer = CostKeeper(run, grid.meter, display)
            server_app = load_app(MAKE_SERVER_APP)(run, observer)
            server_app(grid, make_context(COORDINATOR_NODE_ID, {}, {}))
            _require_a_round(run)
        except FedtrainError as error:
            log.error("run_failed kind=%s message=%s", error.code, error)
            raise
        except Exception:
            log.exception("run_failed kind=internal")
            raise


def _require_a_round(run: RunDirectory) -> None:
    """Refuse to call a run a success in which no round had a usable update."""
    metrics = run.read_metrics()
    if metrics and not any(line["survivors"] for line in metrics):
        reason = metrics[-1].get("void", "no site's update was usable")
        raise RunFailedError(
            f"none of the {len(metrics)} rounds changed the model; the last: {reason}"
            f" ({run.path / 'log.txt'} has each site's reason)"
        )


def _try_to_finish(run: RunDirectory, status: Status, reason: str) -> None:
    """Write down how a run ended; where even that fails, what ended it matters more."""
    with suppress(RunDirectoryError):
        run.finish(status, reason)

"""A run that Flower started: on a SuperLink, or on its Ray engine.

Flower's run config takes the place of the command line's options, and Flower's process that of the
command: what the run directory says, and what the log shows, is the same as of `fedtrain simulate`.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from fedtrain.config import load_config
from fedtrain.errors import ConfigError, FedtrainError, RunDirectoryError
from fedtrain.journal import add_log, stop_log
from fedtrain.resolution import resolve
from fedtrain.runs import RunDirectory
from fedtrain.scenarios import find_scenario

log = logging.getLogger("fedtrain.server")

Options = Mapping[str, object]


def run_on_engine(options: Options, run_federation: Callable[[RunDirectory], None]) -> None:
    """Open the run directory that a run config asks for, and run a federation in it.

    Args:
        options: Flower's run config.
        run_federation: Runs it to its end.

    Raises:
        FedtrainError: The run cannot begin or go on; `state.json` says why, where there is one.
    """
    try:
        _run(options, run_federation)
    except FedtrainError as error:
        # Flower prints the traceback of what it catches; the message is what matters.
        raise error.with_traceback(None) from None


def open_run(options: Options) -> RunDirectory:
    """Make or resume the run directory that a run config asks for; an empty text asks for nothing.

    Args:
        options: `scenario` (a name or a file), `set` (overrides, separated by white space) and
            `out` (default: `run.directory`/`run.name`); or `resume`, a run directory.

    Raises:
        ConfigError: No scenario is named, or it cannot run.
        RunDirectoryError: The directory cannot be used; or it is a private run's, to be resumed:
            a node draws new noise each time, so the round that was under way would be released
            twice and stand in the ledger once. (A simulation repeats it to the bit.)
    """
    resume, scenario, overrides, out = (
        str(options.get(key, "")) for key in ("resume", "scenario", "set", "out")
    )
    if resume:
        return _resume(Path(resume))
    if not scenario:
        raise ConfigError('the run config names no scenario; add scenario = "digits" or a file')
    config = resolve(load_config(find_scenario(scenario), overrides.split()))
    return RunDirectory.create(Path(out or Path(config.run.directory) / config.run.name), config)


def _resume(path: Path) -> RunDirectory:
    run = RunDirectory.resume(path)
    if run.config.privacy.unit != "none":
        run.close()
        raise RunDirectoryError(
            f"{path} has privacy.unit = '{run.config.privacy.unit}': nodes may have released round"
            f" {run.state.round + 1} already and would release it again with other noise; start"
            " anew with another out"
        )
    run.mark_running()
    return run


def _run(options: Options, run_federation: Callable[[RunDirectory], None]) -> None:
    run = open_run(options)
    handlers = add_log(run.path / "log.txt")
    try:
        run_federation(run)
    except FedtrainError as error:
        log.error("run_failed kind=%s message=%s", error.code, error)
        _finish_failed(run, str(error))
        raise
    except Exception as error:
        log.exception("run_failed kind=internal")
        _finish_failed(run, f"{type(error).__name__}; log.txt has the details")
        raise
    finally:
        for handler in handlers:
            stop_log(handler)
        run.close()


def _finish_failed(run: RunDirectory, reason: str) -> None:
    """Write down that a run failed; where even that fails, the error that stopped it matters."""
    try:
        run.finish("failed", reason)
    except RunDirectoryError:
        return

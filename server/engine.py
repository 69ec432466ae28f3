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
from fedtrain.plan import resolve
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
        RunDirectoryError: The directory cannot be used.
    """
    resume, scenario, overrides, out = (
        str(options.get(key, "")) for key in ("resume", "scenario", "set", "out")
    )
    if resume:
        run = RunDirectory.resume(Path(resume))
        run.mark_running()
        return run
    if not scenario:
        raise ConfigError('the run config names no scenario; add scenario = "digits" or a file')
    config = resolve(load_config(find_scenario(scenario), overrides.split()))
    return RunDirectory.create(Path(out or Path(config.run.directory) / config.run.name), config)


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

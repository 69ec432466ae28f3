"""The command that shows a run's figures in another tool."""

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from fedtrain.report.run import Run

POLL_SECONDS: Final = 2.0
ONLY: Final = """\
Sent is what the run directory has of the whole federation: figures by round, config, privacy. What
sites wrote down of themselves is not. The run itself knows nothing of it and waits for nothing.
"""
TENSORBOARD_EPILOG: Final = f"""\
Example:
  fedtrain sink tensorboard runs/digits
  fedtrain sink tensorboard runs/digits --follow    while it trains, until it ends
  tensorboard --logdir tensorboard

{ONLY}Needs: pip install 'fedtrain[tensorboard]'
"""
MLFLOW_EPILOG: Final = f"""\
Example:
  fedtrain sink mlflow runs/digits
  fedtrain sink mlflow runs/digits --register digits
  fedtrain sink mlflow runs/digits --tracking-uri http://localhost:5000 --follow

Config as parameters, figures by round as metrics; digest of the config, fingerprint of the data and
the statement on privacy as tags; config.toml, model and report as artifacts. Sent again, a run is
found by its id and only what is new is added. Whoever reads the store reads all of that, and the
report, where there is one, has a table of the sites.
{ONLY}MLflow's telemetry is switched off. Needs: pip install 'fedtrain[mlflow]'
"""


class Sink(Protocol):
    """What takes a run's figures."""

    def send(self, run: "Run") -> int:
        """Take the rounds that are new; return the last one."""

    def close(self, run: "Run") -> None:
        """Take the rest."""


def register(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add `sink`."""
    summary = "show a run's figures in TensorBoard or MLflow"
    parser = subparsers.add_parser("sink", help=summary, description=f"{summary.capitalize()}.")
    kinds = parser.add_subparsers(metavar="WHERE", required=True)
    _register_tensorboard(kinds)
    _register_mlflow(kinds)


def _register_tensorboard(kinds: "argparse._SubParsersAction[Any]") -> None:
    parser = _add(kinds, "tensorboard", "write TensorBoard event files", TENSORBOARD_EPILOG)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder of the events, which holds none yet (default: tensorboard/NAME OF RUN)",
    )
    parser.set_defaults(run=_run_tensorboard)


def _register_mlflow(kinds: "argparse._SubParsersAction[Any]") -> None:
    parser = _add(kinds, "mlflow", "send a run to an MLflow store", MLFLOW_EPILOG)
    parser.add_argument(
        "--tracking-uri",
        default="sqlite:///mlflow.db",
        metavar="URI",
        help="a store, sqlite:///FILE or the address of a server",
    )
    parser.add_argument(
        "--experiment", default="fedtrain", metavar="NAME", help="made where there is none"
    )
    parser.add_argument(
        "--register",
        metavar="NAME",
        help="also make the model a version of this registered model (default: not registered)",
    )
    parser.set_defaults(run=_run_mlflow)


def _add(
    kinds: "argparse._SubParsersAction[Any]", name: str, summary: str, epilog: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = kinds.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=epilog
    )
    parser.add_argument("path", metavar="RUN", help="a run directory, or its name in runs/")
    parser.add_argument(
        "--follow", action="store_true", help="go on until the run ends (default: as it is now)"
    )
    return parser


def _run_tensorboard(args: argparse.Namespace) -> int:
    from fedtrain.report.run import find_run
    from fedtrain.sinks.tensorboard import TensorBoardSink

    run = find_run(args.path)
    sink = TensorBoardSink.open(args.out or Path("tensorboard") / run.path.name, run)
    send_run(sink, run, follow=args.follow)
    sys.stderr.write(f"next: {sink.describe()}\n")
    sys.stdout.write(f"{sink.folder}\n")
    return 0


def _run_mlflow(args: argparse.Namespace) -> int:
    from fedtrain.report.run import find_run
    from fedtrain.sinks.mlflow import MlflowSink, require_model

    run = find_run(args.path)
    if args.register and not args.follow:
        require_model(run)
    sink = MlflowSink.open(run, uri=args.tracking_uri, experiment=args.experiment)
    run = send_run(sink, run, follow=args.follow)
    if args.register:
        version = sink.register(run, args.register)
        sys.stderr.write(f"registered as {args.register}, version {version}\n")
    sys.stdout.write(f"{sink.id}\n")
    return 0


def send_run(sink: Sink, run: "Run", *, follow: bool, poll_seconds: float = POLL_SECONDS) -> "Run":
    """Send a run as it is, or until it ends.

    Args:
        sink: Where to.
        run: The run as it is now.
        follow: Whether to wait for more rounds while a process holds the run.
        poll_seconds: How often to look.

    Returns:
        The run as it was sent.
    """
    from fedtrain.report.run import load_run

    told = -1
    while True:
        sent = sink.send(run)
        if sent != told:
            sys.stderr.write(f"sent {sent} of {run.rounds_wanted} rounds\n")
        told = sent
        if not follow or run.status != "running":
            break
        time.sleep(poll_seconds)
        run = load_run(run.path)
    sink.close(run)
    return run

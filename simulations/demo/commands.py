"""The command `demo`."""

import argparse
import sys
import time
from pathlib import Path
from typing import Final

DESCRIPTION: Final = """\
Make a whole deployment on this machine and run it: a federation's root, a coordinator and three
sites, each with keys, certificates, policy and ledger of its own, over mutual TLS on loopback. It
is left in a folder, to look at and to start again.
"""
EXAMPLE: Final = """\
Example:
  fedtrain demo deploy
  fedtrain demo deploy hearts --heart-disease data/heart_disease
"""


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `demo`."""
    parser = subparsers.add_parser(
        "demo", help="a whole deployment on this machine, to look at", description=DESCRIPTION
    )
    kinds = parser.add_subparsers(metavar="WHAT", required=True)
    deploy = kinds.add_parser(
        "deploy",
        help="root, coordinator and three sites on loopback",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    deploy.add_argument(
        "path",
        nargs="?",
        type=Path,
        default=Path("demo"),
        metavar="DIR",
        help="where; must not exist (default: demo)",
    )
    deploy.add_argument(
        "--heart-disease",
        type=Path,
        metavar="DIR",
        help="folder of the heart-disease CSV files (default: heart_disease, where it is there,"
        " else scikit-learn's breast-cancer data)",
    )
    deploy.add_argument("--rounds", type=int, help="rounds of the run (default: the scenario's)")
    deploy.set_defaults(run=_run_deploy)


def _run_deploy(args: argparse.Namespace) -> int:
    from .deploy import deploy, prepare, run_command, running, train

    started = time.monotonic()
    demo = prepare(args.path, args.heart_disease, rounds=args.rounds)
    _say(started, f"keys and certificates of a root, a coordinator and {len(demo.data)} sites")
    deploy(demo)
    _say(started, f"coordinator on {demo.address}, sites {', '.join(demo.data)}: starting")
    with running(demo):
        _say(started, f"training {demo.scenario.stem} over mutual TLS")
        run = train(demo)
    _say(started, "stopped; checking")
    sys.stdout.write(run_command("show", run))
    sys.stdout.write(run_command("verify", run))
    for name in demo.data:
        run_command("ledger", "verify", demo.path / name / "ledger")
        sys.stdout.write(run_command("ledger", "budget", demo.path / name / "ledger"))
    sys.stdout.write(_describe(demo.path, next(iter(demo.data)), demo.scenario))
    _say(started, "done")
    sys.stdout.write(f"{run}\n")
    return 0


def _say(started: float, text: str) -> None:
    sys.stderr.write(f"{time.monotonic() - started:4.0f} s  {text}\n")


def _describe(path: Path, site: str, scenario: Path) -> str:
    operator = f"--as {path}/coordinator/admin"
    return f"""
To go on with it, each line in a terminal of its own:
  fedtrain server start {path}/coordinator
  fedtrain client start {path}/{site}            (and the other sites)
  fedtrain server run {scenario} {operator} --wait
To look at it:
  fedtrain server status {operator}
  fedtrain client status {path}/{site}
  fedtrain ledger show {path}/{site}/ledger
"""

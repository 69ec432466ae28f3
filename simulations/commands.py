"""The commands `simulate` and `check`."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedtrain.cli import add_overrides
from fedtrain.energy_options import add_power, read_power

from . import statistics_commands, sweep_commands, validation_commands, vocabulary_commands

if TYPE_CHECKING:
    from fedtrain.audit.findings import Finding

    from .opening import Opened

EXIT_INTERRUPTED = 130


def register(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add `simulate` and `check`."""
    # Before flwr is imported: no telemetry, no look for updates.
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"
    _register_simulate(subparsers)
    _register_check(subparsers)
    statistics_commands.register(subparsers)
    vocabulary_commands.register(subparsers)
    sweep_commands.register(subparsers)
    validation_commands.register(subparsers)


def _register_simulate(subparsers: "argparse._SubParsersAction[Any]") -> None:
    parser = subparsers.add_parser(
        "simulate",
        help="run a whole federation on this machine",
        description=(
            "Run a whole federation on this machine. The last line of standard output is the run"
            " directory."
        ),
    )
    parser.add_argument(
        "scenario",
        nargs="?",
        metavar="SCENARIO",
        help="a TOML file, or the name of a scenario that ships; not needed with --resume",
    )
    add_overrides(parser)
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="run directory to make (default: runs/NAME-DATE-TIME)",
    )
    where.add_argument("--resume", type=Path, metavar="DIR", help="go on with this run directory")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--quiet", action="store_true", help="print the run directory only")
    how.add_argument("--json", action="store_true", help="print one JSON object with the results")
    parser.set_defaults(run=_run_simulate)


def _register_check(subparsers: "argparse._SubParsersAction[Any]") -> None:
    parser = subparsers.add_parser(
        "check",
        help="say what would run, and what it would cost in epsilon",
        description=(
            "Check a scenario and its data; say what would run and what it would cost in epsilon,"
            " without running it."
        ),
    )
    parser.add_argument("scenario", metavar="FILE", help="a scenario, a file or a name")
    add_overrides(parser)
    parser.add_argument(
        "--plan",
        action="store_true",
        help="measure one round, and say what seconds, bytes and energy a whole run would take",
    )
    parser.add_argument(
        "--sites", type=int, metavar="N", help="with --plan: of so many (default: the scenario's)"
    )
    parser.add_argument(
        "--rounds", type=int, metavar="M", help="with --plan: and so many (default: likewise)"
    )
    add_power(parser, "--plan")
    parser.add_argument("--json", action="store_true", help="with --plan: print one JSON object")
    parser.set_defaults(run=_run_check)


def _run_simulate(args: argparse.Namespace) -> int:
    from fedtrain.audit.commands import raise_alarm
    from fedtrain.errors import ConfigError

    from .audit_stage import audit_run
    from .opening import open_scenario
    from .progress import ProgressLine, Silence
    from .simulate import choose_path, reopen, simulate, start

    if args.resume is not None:
        run = reopen(args.resume, args.scenario, args.overrides)
    elif args.scenario is None:
        raise ConfigError(
            "SCENARIO is missing; give a file, a name such as digits, or --resume DIR"
        )
    else:
        opened = open_scenario(args.scenario, args.overrides)
        run = start(opened, choose_path(opened.config, args.out))
    display = Silence() if args.quiet or args.json else ProgressLine()
    try:
        simulate(run, display)
    except KeyboardInterrupt:
        sys.stderr.write(
            f"fedtrain: interrupted; {run.state.round} of {run.state.rounds} rounds are committed,"
            f" go on with: fedtrain simulate --resume {run.path}\n"
        )
        return EXIT_INTERRUPTED
    findings = audit_run(run.path, run.config, quiet=args.quiet or args.json)
    _print_results(run.path, findings, quiet=args.quiet, as_json=args.json)
    return raise_alarm(findings)


def _print_results(
    path: Path, findings: "Sequence[Finding]", *, quiet: bool, as_json: bool
) -> None:
    from fedtrain.audit.tables import render_findings
    from fedtrain.report.run import load_run
    from fedtrain.report.summary import (
        build_summary,
        has_site_results,
        render_sites,
        render_summary,
    )
    from fedtrain.report.tables import make_console

    if as_json:
        sys.stdout.write(json.dumps(build_summary(load_run(path)), allow_nan=False) + "\n")
        return
    if not quiet:
        run = load_run(path)
        console = make_console(sys.stdout)
        console.print(render_summary(run))
        if has_site_results(run):
            console.print(render_sites(run))
        if findings:
            console.print(render_findings(findings))
    sys.stdout.write(f"{path}\n")


def _run_check(args: argparse.Namespace) -> int:
    from fedtrain.errors import ConfigError
    from fedtrain.report.tables import make_console

    from .check import render_check
    from .opening import open_scenario

    read_power(args, "--plan", given=args.plan)
    opened = open_scenario(args.scenario, args.overrides)
    if args.plan and opened.config.statistics is not None:
        raise ConfigError(
            "--plan measures rounds of training, [statistics] asks for one sum and trains nothing;"
            " leave out one of the two"
        )
    if args.plan:
        return _run_plan(args, opened)
    for option in ("sites", "rounds", "json"):
        if getattr(args, option):
            raise ConfigError(f"--{option} is read with --plan; add it")
    make_console(sys.stdout).print(render_check(opened))
    return 0


def _run_plan(args: argparse.Namespace, opened: "Opened") -> int:
    from fedtrain.errors import ConfigError
    from fedtrain.report.tables import make_console

    from .cost import extrapolate, measure_round, render_cost, to_json

    config = opened.config
    cohort = config.federation.sites_per_round or opened.sites
    sites = cohort if args.sites is None else args.sites
    rounds = config.federation.rounds if args.rounds is None else args.rounds
    for option, value in (("sites", sites), ("rounds", rounds)):
        if value < 1:
            raise ConfigError(f"--{option} {value}: give at least 1")
    power = read_power(args, "--plan", given=True)
    measured = measure_round(opened, power)
    planned = extrapolate(measured, config, sites=sites, rounds=rounds)
    if args.json:
        sys.stdout.write(json.dumps(to_json(measured, planned), allow_nan=False) + "\n")
    else:
        make_console(sys.stdout).print(render_cost(measured, planned, power))
    return 0

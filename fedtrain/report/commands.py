"""The commands that make a scenario and that read runs."""

import argparse
import json
import sys
import textwrap
from pathlib import Path
from typing import Any, Final

from fedtrain.cli import add_overrides
from fedtrain.energy_options import add_power, read_power
from fedtrain.errors import ConfigError, RunDirectoryError
from fedtrain.report.privacy_commands import register as register_privacy
from fedtrain.report.report_commands import register as register_report

RUNS_WIDTH: Final = 160  # folders are long
CONFIG_EPILOG: Final = """\
Editors complete and check a scenario that starts with the line
  #:schema fedtrain.schema.json
once `fedtrain config --schema > fedtrain.schema.json` has written that file.
"""
DRAFT_NOTE: Final = (
    "Bounds, categories and classes were read from the table, and so tell of its records: before"
    " anything private is claimed, put what is known without looking in their place."
)
VERIFY_EPILOG: Final = """\
Exits with 0 where all of it holds, with 8 where something does not. Utility metrics, seconds and
bytes cannot be recomputed; of them only damage since the run ended is seen.
"""


def register(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add `init`, `config`, `runs`, `show`, `compare`, `verify`, `report` and `privacy`."""
    _register_init(subparsers)
    _register_config(subparsers)
    _register_runs(subparsers)
    _register_show(subparsers)
    _register_compare(subparsers)
    _register_verify(subparsers)
    register_report(subparsers)
    register_privacy(subparsers)


def _register_init(subparsers: "argparse._SubParsersAction[Any]") -> None:
    summary = "write a commented scenario"
    parser = subparsers.add_parser("init", help=summary, description=f"{summary.capitalize()}.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "name", nargs="?", metavar="NAME", help="name of the run; NAME.toml is written"
    )
    what.add_argument("--list", action="store_true", help="list the scenarios that ship, and leave")
    parser.add_argument(
        "--from",
        dest="base",
        default="digits",
        metavar="SCENARIO",
        help="scenario whose values it starts from, a file or the name of one that ships",
    )
    own = parser.add_argument_group("from a table of your own, in place of a scenario")
    own.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="a .csv or .parquet file, or a folder, a site each",
    )
    own.add_argument(
        "--label", metavar="COLUMN", help="column that is to be predicted, or 'COLUMN > 0'"
    )
    own.add_argument(
        "--site-column", metavar="COLUMN", help="column that names the site of each row"
    )
    parser.set_defaults(run=_run_init)


def _register_config(subparsers: "argparse._SubParsersAction[Any]") -> None:
    summary = "print the resolved config and its digest"
    parser = subparsers.add_parser(
        "config", help=summary, description=f"{summary.capitalize()}.", epilog=CONFIG_EPILOG
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("file", nargs="?", metavar="FILE", help="a scenario, a file or a name")
    what.add_argument("--schema", action="store_true", help="print the JSON Schema instead")
    add_overrides(parser)
    parser.set_defaults(run=_run_config)


def _register_runs(subparsers: "argparse._SubParsersAction[Any]") -> None:
    summary = "list runs, newest first"
    parser = subparsers.add_parser("runs", help=summary, description=f"{summary.capitalize()}.")
    parser.add_argument("folder", nargs="?", default="runs", metavar="DIR", help="folder of runs")
    parser.set_defaults(run=_run_runs)


def _register_show(subparsers: "argparse._SubParsersAction[Any]") -> None:
    summary = "show a run: summary, rounds, sites, guarantee"
    parser = subparsers.add_parser("show", help=summary, description=f"{summary.capitalize()}.")
    parser.add_argument("path", metavar="RUN", help="a run directory, or its name in runs/")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object (default: tables)")
    form.add_argument(
        "--all", action="store_true", help="print every round and site (default: 20 and 30)"
    )
    parser.add_argument(
        "--cost",
        action="store_true",
        help="print seconds, bytes and energy by round and by site (default: results)",
    )
    add_power(parser, "--cost")
    parser.set_defaults(run=_run_show)


def _register_compare(subparsers: "argparse._SubParsersAction[Any]") -> None:
    summary = "compare runs side by side"
    parser = subparsers.add_parser("compare", help=summary, description=f"{summary.capitalize()}.")
    parser.add_argument("first", metavar="RUN", help="a run directory, or its name in runs/")
    parser.add_argument("others", nargs="+", metavar="RUN", help="more of them")
    parser.add_argument(
        "--out",
        default="comparison.png",
        metavar="FILE.png",
        help="where the picture goes; an older one is replaced",
    )
    parser.add_argument(
        "--target",
        type=float,
        metavar="ACCURACY",
        help="also show each run's first round of this accuracy, e.g. 0.95 (default: no such row)",
    )
    parser.set_defaults(run=_run_compare)


def _register_verify(subparsers: "argparse._SubParsersAction[Any]") -> None:
    summary = "check a run's, or a report's, signatures, digests and figures"
    parser = subparsers.add_parser(
        "verify", help=summary, description=f"{summary.capitalize()}.", epilog=VERIFY_EPILOG
    )
    parser.add_argument(
        "path", metavar="RUN", help="a run directory, its name in runs/, or a report.json"
    )
    parser.add_argument(
        "--roster",
        metavar="FILE",
        help="a roster.json whose root and keys to check against (default: the run's own)",
    )
    parser.add_argument(
        "--coordinator",
        metavar="FILE",
        help="public key that must have signed the report (default: whichever did)",
    )
    parser.set_defaults(run=_run_verify)


def _run_init(args: argparse.Namespace) -> int:
    from fedtrain.config import load_config
    from fedtrain.report.scenario import render_scenario
    from fedtrain.scenarios import find_scenario, list_scenarios, read_headline

    if args.list:
        listed = list_scenarios()
        width = max(map(len, listed)) + 2
        for name, shipped in listed.items():
            text = f"{name:<{width}}{read_headline(shipped)}"
            lines = textwrap.wrap(text, 100, subsequent_indent=" " * width)
            sys.stdout.write("\n".join(lines) + "\n")
        return 0
    path = Path(f"{args.name.removesuffix('.toml')}.toml")
    if args.data is None:
        for option in ("label", "site_column"):
            if getattr(args, option) is not None:
                raise ConfigError(f"--{option.replace('_', '-')} is read with --data; add it")
        text = render_scenario(load_config(find_scenario(args.base)), path.stem)
    else:
        text = _draft(args, path.stem)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise ConfigError(f"{path}: exists; choose another name or remove it") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror})") from error
    sys.stdout.write(f"{path}\n")
    sys.stderr.write(f"wrote {path}; next: fedtrain check {path}, fedtrain simulate {path}\n")
    return 0


def _draft(args: argparse.Namespace, name: str) -> str:
    from fedtrain.config import build_config
    from fedtrain.data.draft import draft_scenario
    from fedtrain.report.scenario import render_scenario

    if args.label is None:
        raise ConfigError("--label is missing: which column of the table is to be predicted?")
    draft = draft_scenario(args.data, label=args.label, site_column=args.site_column)
    left_out = "".join(f"\nleft out: {column} ({why})" for column, why in draft.left_out.items())
    sys.stderr.write(f"{DRAFT_NOTE}{left_out}\n")
    return render_scenario(build_config(draft.tree, name="init"), name, note=DRAFT_NOTE)


def _run_config(args: argparse.Namespace) -> int:
    from fedtrain.config import Config, compute_digest, load_config, to_toml
    from fedtrain.scenarios import find_scenario

    if args.schema:
        schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
        sys.stdout.write(json.dumps(schema | Config.model_json_schema(), indent=2) + "\n")
        return 0
    config = load_config(find_scenario(args.file), args.overrides)
    from fedtrain.resolution import resolve

    config = resolve(config)
    sys.stdout.write(f'{to_toml(config)}\n# digest = "{compute_digest(config)}"\n')
    return 0


def _run_runs(args: argparse.Namespace) -> int:
    from fedtrain.report.compare import render_runs
    from fedtrain.report.run import Run, find_runs, load_run
    from fedtrain.report.tables import make_console

    runs: list[Run] = []
    for path in find_runs(Path(args.folder)):
        try:
            runs.append(load_run(path))
        except RunDirectoryError as error:
            sys.stderr.write(f"left out: {error}\n")
    runs.sort(key=lambda run: str(run.state.get("started", "")), reverse=True)
    make_console(sys.stdout, RUNS_WIDTH).print(render_runs(runs))
    return 0


def _run_show(args: argparse.Namespace) -> int:
    from fedtrain.report.confusion import load_confusion, render_confusion
    from fedtrain.report.cost_sums import build_costs
    from fedtrain.report.costs import render_costs
    from fedtrain.report.run import find_run
    from fedtrain.report.summary import build_summary, render_rounds, render_sites, render_summary
    from fedtrain.report.tables import make_console
    from fedtrain.statistics.printing import print_result
    from fedtrain.statistics.result import RESULT_FILE, load_result

    power = read_power(args, "--cost", given=args.cost)
    run = find_run(args.path)
    if args.json:
        tree = build_costs(run, power) if args.cost else build_summary(run)
        sys.stdout.write(json.dumps(tree, allow_nan=False) + "\n")
        return 0
    console = make_console(sys.stdout)
    limits = {"limit": None} if args.all else {}
    if args.cost:
        console.print(render_costs(run, **limits, power=power))
        return 0
    console.print(render_summary(run))
    if (run.path / RESULT_FILE).exists():
        print_result(load_result(run.path))
        return 0
    console.print(render_rounds(run, **limits))
    console.print(render_sites(run, **limits))
    confusion = load_confusion(run.path)
    if confusion is not None:
        console.print(render_confusion(confusion))
    return 0


def _run_verify(args: argparse.Namespace) -> int:
    from fedtrain.report.run import find_path, is_run
    from fedtrain.report.standalone import verify_report
    from fedtrain.report.tables import make_console
    from fedtrain.report.verify import raise_first, render_checks, verify_run
    from fedtrain.secagg.files import load_public_key

    path = Path(args.path)
    key = None if args.coordinator is None else load_public_key(Path(args.coordinator)).hex()
    if path.is_file() and not is_run(path.parent):
        if args.roster is not None:
            raise ConfigError(
                f"--roster {args.roster}: {path} stands alone, without what a roster signs; give"
                " the run directory"
            )
        checks = verify_report(path, coordinator=key)
    else:
        path = path.parent if path.is_file() else find_path(args.path)
        roster = None if args.roster is None else Path(args.roster)
        checks = verify_run(path, roster, coordinator=key)
    make_console(sys.stdout).print(render_checks(path, checks))
    raise_first(checks)
    return 0


def _run_compare(args: argparse.Namespace) -> int:
    from fedtrain.report.compare import name_runs, render_comparison
    from fedtrain.report.run import find_run
    from fedtrain.report.tables import make_console

    picture = Path(args.out)
    if picture.suffix.lower() != ".png":
        raise ConfigError(f"--out {picture}: the picture is a PNG; give a name that ends in .png")
    if args.target is not None and not 0 < args.target <= 1:
        raise ConfigError(
            f"--target {args.target:g}: an accuracy is above 0 and at most 1; 0.95 is 95 %"
        )
    runs = [find_run(text) for text in (args.first, *args.others)]
    make_console(sys.stdout).print(render_comparison(runs, args.target))
    from fedtrain.report.curves import draw_comparison

    try:
        draw_comparison(runs, picture, labels=name_runs(runs))
    except OSError as error:
        raise ConfigError(f"--out {picture}: cannot be written ({error.strerror})") from error
    sys.stdout.write(f"{picture}\n")
    return 0

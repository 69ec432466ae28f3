"""The command `bench`."""

import argparse
import json
import sys
from typing import Any, Final

DEFAULT: Final = ("a", "b")
DESCRIPTION: Final = """\
Time a round of simulated federated learning: a bare PyTorch loop, fedtrain with 1 and 2 workers,
and, where installed (pip install 'fedtrain[bench]'), pfl and Flower's Ray engine. Each runs in
processes of its own, in turn; the first round of each is not counted.
"""


def register(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add `bench`."""
    parser = subparsers.add_parser(
        "bench", help="measure speed and memory, beside other tools", description=DESCRIPTION
    )
    kinds = parser.add_subparsers(metavar="WHAT", required=True)
    simulate = kinds.add_parser(
        "simulate", help="seconds a round and peak memory of a simulation", description=DESCRIPTION
    )
    simulate.add_argument(
        "--workload",
        choices=(*DEFAULT, "smoke", "all"),
        default="all",
        help="a: logistic regression; b: CNN; smoke: seconds, to see that it runs; all: a and b",
    )
    simulate.add_argument(
        "--rounds",
        type=_positive,
        metavar="N",
        help="rounds to time in a process (default: 400 for a, 3 for b)",
    )
    simulate.add_argument(
        "--repeats",
        type=_positive,
        default=3,
        metavar="N",
        help="processes for each contender, in turn",
    )
    simulate.add_argument("--json", action="store_true", help="print one JSON object")
    simulate.set_defaults(run=_run_simulate)


def _run_simulate(args: argparse.Namespace) -> int:
    from fedtrain.report.tables import make_console

    from .simulate import measure
    from .table import render_measurements, to_json
    from .workloads import WORKLOADS

    console = make_console(sys.stdout)
    trees = {}
    for name in DEFAULT if args.workload == "all" else (args.workload,):
        workload = WORKLOADS[name]
        found = measure(name, rounds=args.rounds or workload.rounds, repeats=args.repeats)
        trees[name] = to_json(found)
        if not args.json:
            console.print(render_measurements(f"({name}) {workload.title}", found))
    if args.json:
        sys.stdout.write(json.dumps(trees, allow_nan=False) + "\n")
    return 0


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1; give 1 or more")
    return value

"""The command `bench`."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

from fedtrain.errors import ConfigError

DEFAULT: Final = ("a", "b")
DESCRIPTION: Final = """\
Time a round of simulated federated learning: a bare PyTorch loop, fedtrain with 1 and 2 workers,
and, where installed (see the extra 'bench' in pyproject.toml), pfl and Flower's Ray engine. Each
runs in processes of its own, in turn; the first round of each is not counted.
"""

SECAGG: Final = """\
Time secure aggregation: whole rounds of the protocol in this process, without and with a tenth of
the sites dropped; what one site and the coordinator take, beside the floor (the masks' keystream
and one addition each, at rates measured here) and Flower's SecAgg+ primitives on the same shapes.
Combinations whose masks of all sites are beyond d n^2 = 2e10 are left out, unless --all.
"""

DP: Final = """\
Time a step of differentially private training, in one thread: plain SGD, fedtrain, and Opacus'
hooks, functorch, ew and ghost, in turn; twice, as the C library comes and with freed memory kept.
"""

LINK: Final = """\
Time round trips of a deployed federation on loopback: a coordinator and agents in processes of
their own, with keys and certificates, which send back what they are sent; beside plain TCP and
TLS 1.3 of the same bytes, in turn. Then rounds of a run with secure aggregation.
"""


ROBUSTNESS: Final = """\
Run short federations in which two of eleven sites attack (flipped labels, flipped or scaled
updates) against the average with secure aggregation, with a tight bound on updates, and against
the median, the trimmed mean, Krum and Bulyan without it. 24 runs, a minute or two.
"""

COMPRESSION: Final = """\
Run the scenario digits_compressed without compression and with each part of it: updates of 16, 8
and 4 bits, a share of the coordinates, pruned weights, weights of 8 bits; accuracy and bytes in
one table. 9 runs, two minutes.
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
    _register_secagg(kinds)
    _register_dp(kinds)
    _register_link(kinds)
    _register_robustness(kinds)
    _register_compression(kinds)


def _register_secagg(kinds: "argparse._SubParsersAction[Any]") -> None:
    secagg = kinds.add_parser(
        "secagg", help="seconds, memory and bytes of secure aggregation", description=SECAGG
    )
    secagg.add_argument(
        "--sizes",
        type=_positive,
        nargs="+",
        metavar="D",
        help="coordinates of the update (default: 10000 100000 1000000 10000000)",
    )
    secagg.add_argument(
        "--sites", type=_cohort, nargs="+", metavar="N", help="cohorts (default: 4 10 32 100)"
    )
    secagg.add_argument(
        "--threads", type=_positive, metavar="T", help="that add or remove masks (default: cores)"
    )
    secagg.add_argument("--all", action="store_true", help="leave no combination out")
    secagg.add_argument("--json", action="store_true", help="print one JSON object")
    secagg.set_defaults(run=_run_secagg)


def _register_dp(kinds: "argparse._SubParsersAction[Any]") -> None:
    dp = kinds.add_parser("dp", help="milliseconds and memory of a DP-SGD step", description=DP)
    dp.add_argument("--models", nargs="+", metavar="MODEL", help="of those in the table, by key")
    dp.add_argument(
        "--batches", type=_positive, nargs="+", metavar="B", help="records a step (default: 32 256)"
    )
    dp.add_argument(
        "--seconds", type=float, default=6.0, metavar="S", help="for each model and batch"
    )
    dp.add_argument("--json", action="store_true", help="print one JSON object")
    dp.set_defaults(run=_run_dp)


def _register_link(kinds: "argparse._SubParsersAction[Any]") -> None:
    link = kinds.add_parser(
        "link", help="round trips of a deployed federation on loopback", description=LINK
    )
    link.add_argument(
        "--sizes",
        type=_count,
        nargs="+",
        metavar="MB",
        help="megabytes of the model; 0 is an empty round (default: 0 1 10 100)",
    )
    link.add_argument("--sites", type=_cohort, default=10, metavar="N", help="agents (default: 10)")
    link.add_argument(
        "--rounds",
        type=_positive,
        default=30,
        metavar="N",
        help="of each size; from 10 MB on a tenth as many (default: 30)",
    )
    link.add_argument(
        "--secure-rounds",
        type=_count,
        default=10,
        metavar="N",
        help="of a run with secure aggregation (default: 10)",
    )
    link.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        help="where folders are made and removed, on the disk to be measured (default: temporary)",
    )
    link.add_argument("--json", action="store_true", help="print one JSON object")
    link.set_defaults(run=_run_link)


def _register_robustness(kinds: "argparse._SubParsersAction[Any]") -> None:
    robustness = kinds.add_parser(
        "robustness", help="rules of aggregation against sites that attack", description=ROBUSTNESS
    )
    robustness.add_argument(
        "--rounds", type=_positive, metavar="N", help="of each run (default: 15)"
    )
    robustness.add_argument("--json", action="store_true", help="print one JSON object")
    robustness.set_defaults(run=_run_robustness)


def _register_compression(kinds: "argparse._SubParsersAction[Any]") -> None:
    compression = kinds.add_parser(
        "compression", help="accuracy and bytes of compressed runs", description=COMPRESSION
    )
    compression.add_argument(
        "--rounds", type=_several, metavar="N", help="of each run, at least 2 (default: 60)"
    )
    compression.add_argument("--json", action="store_true", help="print one JSON object")
    compression.set_defaults(run=_run_compression)


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


def _run_secagg(args: argparse.Namespace) -> int:
    from fedtrain.report.tables import make_console

    from .secagg import MOST_WORK, SITES, SIZES, count_cores, measure_secagg
    from .secagg_table import LEGEND, WIDTH, render_secagg, to_json_secagg

    threads = args.threads or count_cores()
    found = list(
        measure_secagg(
            args.sizes or SIZES,
            args.sites or SITES,
            threads=threads,
            most_work=float("inf") if args.all else MOST_WORK,
        )
    )
    if args.json:
        tree = to_json_secagg(found, threads=threads)
        sys.stdout.write(json.dumps(tree, allow_nan=False) + "\n")
        return 0
    console = make_console(sys.stdout, WIDTH)
    console.print(render_secagg(found, threads=threads))
    console.print(LEGEND)
    return 0


def _run_dp(args: argparse.Namespace) -> int:
    from fedtrain.report.tables import make_console

    from .dp import ALLOCATORS, BATCHES, measure_dp
    from .dp_models import CASES
    from .dp_table import LEGEND, WIDTH, render_dp, to_json_dp

    models = args.models or list(CASES)
    for model in models:
        if model not in CASES:
            raise ConfigError(f"--models: '{model}' is unknown; choose {', '.join(CASES)}")
    found = list(measure_dp(models, args.batches or BATCHES, seconds=args.seconds))
    if args.json:
        sys.stdout.write(json.dumps(to_json_dp(found), allow_nan=False) + "\n")
        return 0
    console = make_console(sys.stdout, WIDTH)
    for allocator in ALLOCATORS:
        console.print(render_dp(found, allocator))
    for failed in (m for m in found if m.reason and m.allocator == "default"):
        console.print(
            f"{failed.contender} on {failed.model}, batch {failed.batch}: {failed.reason}"
        )
    console.print(LEGEND)
    return 0


def _run_link(args: argparse.Namespace) -> int:
    from fedtrain.report.tables import make_console

    from .link import SIZES, measure_link
    from .link_table import LEGEND, WIDTH, describe_secure, render_link, to_json_link

    found = measure_link(
        args.sizes or SIZES,
        sites=args.sites,
        rounds=args.rounds,
        secure_rounds=args.secure_rounds,
        folder=args.folder,
    )
    if args.json:
        tree = to_json_link(found, sites=args.sites)
        sys.stdout.write(json.dumps(tree, allow_nan=False) + "\n")
        return 0
    console = make_console(sys.stdout, WIDTH)
    console.print(render_link(found, sites=args.sites))
    console.print(LEGEND)
    if found.secure:
        console.print(describe_secure(found))
    return 0


def _run_robustness(args: argparse.Namespace) -> int:
    from fedtrain.report.tables import make_console

    from .robustness import ATTACKS, DEFENCES, ROUNDS, measure_robustness
    from .robustness_table import LEGEND, render_robustness, to_json_robustness

    found, cases = [], len(ATTACKS) * len(DEFENCES)
    for one in measure_robustness(args.rounds or ROUNDS):
        found.append(one)
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{len(found)}/{cases}  {one.defence}, {one.attack}\033[K")
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
    if args.json:
        sys.stdout.write(json.dumps(to_json_robustness(found), allow_nan=False) + "\n")
        return 0
    console = make_console(sys.stdout)
    console.print(render_robustness(found))
    console.print(LEGEND)
    return 0


def _run_compression(args: argparse.Namespace) -> int:
    from fedtrain.report.tables import make_console

    from .compression import CASES, measure_compression
    from .compression_table import LEGEND, render_compression, to_json_compression

    found = []
    for one in measure_compression(args.rounds):
        found.append(one)
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{len(found)}/{len(CASES)}  {one.case}\033[K")
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
    if args.json:
        sys.stdout.write(json.dumps(to_json_compression(found), allow_nan=False) + "\n")
        return 0
    console = make_console(sys.stdout)
    console.print(render_compression(found))
    console.print(LEGEND)
    return 0


def _cohort(text: str) -> int:
    value = int(text)
    if not 4 <= value <= 200:
        raise argparse.ArgumentTypeError(f"{text} is not between 4 and 200, the complete graphs")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0; give 0 or more")
    return value


def _several(text: str) -> int:
    value = int(text)
    if value < 2:
        raise argparse.ArgumentTypeError(f"{text} is below 2; give 2 or more")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1; give 1 or more")
    return value

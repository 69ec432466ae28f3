"""The commands `stats` and `drift`."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedtrain.cli import add_overrides

if TYPE_CHECKING:
    from fedtrain.statistics.drift import Drift

    from .statistics import Answer, Noise

_DELTA = 1e-5


def register(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add `stats` and `drift`."""
    _register_stats(subparsers)
    _register_drift(subparsers)


def _register_stats(subparsers: "argparse._SubParsersAction[Any]") -> None:
    parser = subparsers.add_parser(
        "stats",
        help="describe the data of all sites together, through secure aggregation",
        description=(
            "Describe the data of all sites together: counts, means, variances, histograms,\n"
            "quantiles, missing shares, correlation. Only their sums over all sites leave, by the\n"
            "protocol of secure aggregation; with --epsilon noise that the sites add in shares\n"
            "protects every record. Numbers need public bounds (data.bounds).\n"
            "Of a run that asked deployed sites (fedtrain server stats), give its directory: its\n"
            "result is printed.\n\n"
            "Example:\n"
            "  fedtrain stats heart_disease --set data.path=heart_disease --pictures pictures\n"
            "  fedtrain stats digits --epsilon 1 --delta 1e-6\n"
            "  fedtrain stats heart-20270101-1 --pictures pictures"
        ),
    )
    _add_common(parser)
    parser.add_argument("--columns", metavar="A,B", help="only these columns (default: all)")
    parser.add_argument("--bins", type=int, default=20, metavar="N", help="bins of a histogram")
    parser.add_argument(
        "--correlation",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="compare every two numeric columns (default: unless there is noise)",
    )
    parser.add_argument(
        "--pictures", type=Path, metavar="DIR", help="write histograms, missing, correlation (PNG)"
    )
    parser.set_defaults(run=_run_stats)


def _register_drift(subparsers: "argparse._SubParsersAction[Any]") -> None:
    parser = subparsers.add_parser(
        "drift",
        help="compare new data with the training data, and say whether to retrain",
        description=(
            "Compare new data at the sites with the data of a scenario, column by column: the\n"
            "population stability index and the shift of labels, from two secure sums of\n"
            "histograms. Exit code 0, whatever is found. Of deployed sites give the directories\n"
            "of two runs of fedtrain server stats --epsilon, that of the training data first.\n\n"
            "Example:\n"
            "  fedtrain drift heart_disease --set data.path=heart_disease --new heart_2027\n"
            "  fedtrain drift heart-20270101-1 --new heart-20270601-1"
        ),
    )
    _add_common(parser)
    parser.add_argument(
        "--new",
        required=True,
        metavar="PATH",
        help="the new data, of the form of data.path; or a run",
    )
    parser.add_argument(
        "--threshold", type=float, default=0.25, metavar="PSI", help='index that says "retrain"'
    )
    parser.add_argument(
        "--by-site",
        action="store_true",
        help="also each site's own drift, as it would see it (not with --epsilon)",
    )
    parser.set_defaults(run=_run_drift)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scenario", metavar="SCENARIO", help="a scenario, a file or a name")
    add_overrides(parser)
    parser.add_argument(
        "--epsilon", type=float, metavar="E", help="protect every record (default: exact sums)"
    )
    parser.add_argument("--delta", type=float, metavar="D", help="delta of it (default: 1e-5)")
    parser.add_argument(
        "--min-records", type=int, default=10, metavar="N", help="tell nothing of fewer records"
    )
    parser.add_argument(
        "--max-records",
        type=int,
        metavar="N",
        help="records of one site at most, public (default: secure_aggregation.max_weight)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _run_stats(args: argparse.Namespace) -> int:
    from fedtrain.statistics.printing import print_result
    from fedtrain.statistics.result import RESULT_FILE, load_result

    from .statistics import ask_sites, open_sites

    folder = Path(args.scenario)
    if (folder / RESULT_FILE).exists():
        print_result(load_result(folder), pictures=args.pictures, as_json=args.json)
        return 0
    noise = _read_noise(args)
    sites = open_sites(args.scenario, args.overrides, noised=noise is not None)
    answer = ask_sites(
        sites,
        columns=args.columns.split(",") if args.columns else (),
        bins=args.bins,
        correlation=noise is None if args.correlation is None else args.correlation,
        max_records=args.max_records,
        noise=noise,
    )
    result = answer.build_result(args.min_records)
    print_result(result, pictures=args.pictures, as_json=args.json, seeded=True)
    return 0


def _run_drift(args: argparse.Namespace) -> int:
    from fedtrain.errors import ConfigError
    from fedtrain.report.tables import make_console
    from fedtrain.statistics.drift import measure_drift
    from fedtrain.statistics.printing import print_guarantee
    from fedtrain.statistics.result import RESULT_FILE
    from fedtrain.statistics.tables import render_drift, render_site_drift

    from .statistics import ask_sites, measure_site_drift, open_sites

    if (Path(args.scenario) / RESULT_FILE).exists():
        return _compare_runs(args)
    noise = _read_noise(args)
    if noise is not None and args.by_site:
        raise ConfigError(
            "--by-site tells exact figures of each site; leave out one of it and --epsilon"
        )
    old, new = (
        open_sites(args.scenario, args.overrides, noised=noise is not None, path=path)
        for path in (None, args.new)
    )
    before, after = (
        ask_sites(sites, max_records=args.max_records, noise=noise, sums=2) for sites in (old, new)
    )
    limits = {"min_records": args.min_records, "threshold": args.threshold}
    drift = measure_drift(before.plan, before.sums, after.sums, **limits)
    by_site = measure_site_drift(old, new, before.plan, **limits) if args.by_site else None
    if args.json:
        tree = drift.to_json()
        if by_site is not None:
            tree["by_site"] = {name: one and one.to_json() for name, one in by_site.items()}
        _print_json(tree, before)
        return 0
    make_console(sys.stdout).print(render_drift(drift))
    if by_site is not None:
        make_console(sys.stdout).print(render_site_drift(by_site))
    print_guarantee(before.build_result(args.min_records), sums=2, seeded=True)
    _print_verdict(drift)
    return 0


def _compare_runs(args: argparse.Namespace) -> int:
    """Compare the answers of deployed sites to the same question, before and now."""
    from fedtrain.errors import ConfigError
    from fedtrain.report.tables import make_console
    from fedtrain.statistics.printing import print_guarantee
    from fedtrain.statistics.result import compare_results, describe_cost, load_result
    from fedtrain.statistics.tables import render_drift

    if args.by_site or args.epsilon is not None or args.overrides:
        raise ConfigError(
            f"{args.scenario} is a run that has been asked already: --by-site, --epsilon and --set"
            " do not change it; leave them out"
        )
    before, after = load_result(Path(args.scenario)), load_result(Path(args.new))
    drift = compare_results(before, after, threshold=args.threshold, min_records=args.min_records)
    if args.json:
        tree = drift.to_json() | {"cost_a_sum": describe_cost(after.cost), "sites": after.sites}
        sys.stdout.write(json.dumps(tree, allow_nan=False) + "\n")
        return 0
    make_console(sys.stdout).print(render_drift(drift))
    print_guarantee(after, sums=2)
    _print_verdict(drift)
    return 0


def _print_verdict(drift: "Drift") -> None:
    names = ", ".join(drift.drifted)
    verdict = f"retrain: {names} beyond {drift.threshold:g}" if names else "no need to retrain"
    sys.stdout.write(f"{verdict}\n")


def _read_noise(args: argparse.Namespace) -> "Noise | None":
    from fedtrain.errors import ConfigError

    from .statistics import Noise

    if args.epsilon is None:
        if args.delta is not None:
            raise ConfigError(f"--delta {args.delta:g} has no effect without --epsilon; give both")
        return None
    return Noise(args.epsilon, _DELTA if args.delta is None else args.delta)


def _print_json(tree: dict[str, Any], answer: "Answer") -> None:
    from fedtrain.statistics.result import describe_cost

    tree |= {"sites": answer.sites, "cost_a_sum": describe_cost(answer.cost)}
    sys.stdout.write(json.dumps(tree, allow_nan=False) + "\n")

"""The command `fedtrain server stats`: ask deployed sites for statistics."""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fedtrain.cli import add_overrides

if TYPE_CHECKING:
    from fedtrain.statistics.result import StatisticsResult

DESCRIPTION: Final = """\
Ask the sites of a scenario for statistics, in a run that trains nothing: counts, means, variances,
histograms, quantiles, missing shares and class counts over all of them, by one secure sum. Each
site's policy decides (statistics, max_statistics_epsilon, exact_statistics), and its lifetime
budget pays. The result lies in the run's directory: fedtrain server fetch, then fedtrain stats.

Example:
  fedtrain server stats study.toml --epsilon 1 --as coordinator/admin --wait
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `stats`."""
    parser.description = DESCRIPTION
    parser.add_argument("scenario", metavar="SCENARIO.toml", help="a scenario, a file or a name")
    add_overrides(parser)
    parser.add_argument("--sites", metavar="A,B", help="sites of the run (default: all)")
    parser.add_argument("--columns", metavar="A,B", help="only these columns (default: all)")
    parser.add_argument("--bins", type=int, metavar="N", help="bins of a histogram (default: 20)")
    parser.add_argument(
        "--correlation", action="store_true", help="compare every two numeric columns"
    )
    parser.add_argument(
        "--epsilon", type=float, metavar="E", help="protect every record (default: exact sums)"
    )
    parser.add_argument("--delta", type=float, metavar="D", help="delta of it (default: 1e-5)")
    parser.add_argument(
        "--min-records", type=int, metavar="N", help="tell nothing of fewer (default: 10)"
    )
    parser.add_argument(
        "--max-records", type=int, metavar="N", help="records of one site at most, public"
    )
    parser.add_argument("--wait", action="store_true", help="wait for the result and print it")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="with --wait: draw it, too")
    parser.add_argument("--json", action="store_true", help="with --wait: print one JSON object")


def ask(calls: Any, args: argparse.Namespace, *, wait: Callable[[Any, str], None]) -> int:
    """Submit a question, and print its result where that is waited for.

    Args:
        calls: An operator's.
        args: Of the command.
        wait: Waits for a run's end.

    Raises:
        ConfigError: The arguments do not go together.
        RunFailedError: There is no result; the reason is public.
    """
    from fedtrain.errors import ConfigError
    from fedtrain.scenarios import find_scenario
    from fedtrain.statistics.printing import print_result

    if not args.wait and (args.json or args.pictures is not None):
        raise ConfigError("--json and --pictures are of the result; give --wait, too")
    overrides = [*args.overrides, *list_overrides(args)]
    scenario, sites = find_scenario(args.scenario), split_names(args.sites)
    run = calls.submit(scenario, overrides=overrides, sites=sites)
    if not args.wait:
        sys.stdout.write(f"{run}\n")
        return 0
    result = fetch_result(calls, run, wait=wait)
    print_result(result, pictures=args.pictures, as_json=args.json)
    return 0


def fetch_result(calls: Any, run: str, *, wait: Callable[[Any, str], None]) -> "StatisticsResult":
    """Wait for the end of a question's run, and return what it told.

    Raises:
        RunFailedError: There is no result; the reason is public.
    """
    from fedtrain.statistics.result import load_result

    wait(calls, run)
    with tempfile.TemporaryDirectory() as folder:
        calls.fetch(run, Path(folder) / run)
        return load_result(Path(folder) / run)


def list_overrides(args: argparse.Namespace) -> list[str]:
    """Return the keys of a question that the arguments set, each "section.key=value".

    Raises:
        ConfigError: A delta without an epsilon.
    """
    from fedtrain.errors import ConfigError

    if args.delta is not None and args.epsilon is None:
        raise ConfigError(f"--delta {args.delta:g} has no effect without --epsilon; give both")
    columns = split_names(args.columns)
    keys = {
        "columns": json.dumps(columns) if columns else None,
        "bins": args.bins,
        "correlation": str(args.correlation).lower(),  # a run is one question: at least one key
        "target_epsilon": args.epsilon,
        "target_delta": args.delta,
        "min_records": args.min_records,
        "max_records": args.max_records,
    }
    return [f"statistics.{key}={value}" for key, value in keys.items() if value is not None]


def split_names(text: str | None) -> list[str]:
    """Return the names that an option lists, commas between them; none where it is not given."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]

"""The command `fedtrain server vocabulary`: learn tokens of deployed sites' texts."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from fedtrain.cli import add_overrides

from .statistics_commands import fetch_result, split_names

DESCRIPTION: Final = """\
Learn a byte-pair vocabulary of the texts at a scenario's sites, in runs that train nothing: each
asks in how many records one token follows another, by a secure sum with noise, and the most
frequent pairs become tokens. Each site's policy decides (statistics, max_statistics_epsilon), and
its lifetime budget pays for every step. The scenario with the vocabulary so far (data.vocabulary)
is written after each step; given as SCENARIO, it is gone on with.

Example:
  fedtrain server vocabulary plays.toml --size 256 --epsilon 2 --out tokens.toml
"""
_DELTA: Final = 1e-5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `vocabulary`."""
    parser.description = DESCRIPTION
    parser.add_argument("scenario", metavar="SCENARIO.toml", help="a scenario, a file or a name")
    add_overrides(parser)
    parser.add_argument("--sites", metavar="A,B", help="sites of the runs (default: all)")
    parser.add_argument("--size", type=int, default=256, metavar="N", help="tokens wanted")
    parser.add_argument(
        "--epsilon", type=float, required=True, metavar="E", help="what all steps cost a record"
    )
    parser.add_argument(
        "--delta", type=float, default=_DELTA, metavar="D", help="its delta (default: 1e-5)"
    )
    parser.add_argument(
        "--min-count", type=int, default=50, metavar="N", help="fewest records of a pair"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="what is written")


def learn(calls: Any, args: argparse.Namespace, *, wait: Callable[[Any, str], None]) -> int:
    """Ask step by step, and write the scenario with the vocabulary.

    Args:
        calls: An operator's.
        args: Of the command.
        wait: Waits for a run's end.

    Raises:
        ConfigError: The arguments do not go together.
        RunFailedError: A step has no result; those before are written.
    """
    from fedtrain.config import load_config
    from fedtrain.scenarios import find_scenario
    from fedtrain.statistics.vocabulary import extend_vocabulary, plan_vocabulary

    scenario = find_scenario(args.scenario)
    config = load_config(scenario, args.overrides)
    plan = plan_vocabulary(
        config,
        size=args.size,
        target_epsilon=args.epsilon,
        target_delta=args.delta,
        min_count=args.min_count,
    )
    sites = split_names(args.sites)
    tokens = plan.tokens
    for step in range(1, plan.steps + 1):
        overrides = [
            *args.overrides,
            f"statistics.noise_multiplier={plan.noise_multiplier}",
            f"statistics.target_delta={plan.target_delta}",
        ]
        if tokens != plan.tokens:
            overrides.append(f"statistics.vocabulary={json.dumps(tokens)}")
        run = calls.submit(scenario, overrides=overrides, sites=sites)
        longer = extend_vocabulary(plan, tokens, fetch_result(calls, run, wait=wait))
        if longer == tokens:
            sys.stderr.write("no further pair is frequent enough\n")
            break
        tokens = longer
        _write(args.out, config, tokens)
        sys.stderr.write(f"step {step} of {plan.steps}: {len(tokens)} tokens\n")
    sys.stdout.write(f"{args.out if tokens != plan.tokens else 'nothing was written'}\n")
    return 0


def _write(path: Path, config: Any, tokens: tuple[str, ...]) -> None:
    from fedtrain.config import to_toml
    from fedtrain.durable import replace_file
    from fedtrain.errors import RunDirectoryError

    data = config.data.model_copy(update={"vocabulary": tokens})
    try:
        replace_file(path, to_toml(config.model_copy(update={"data": data})))
    except OSError as error:
        raise RunDirectoryError(
            f"--out {path}: cannot be written ({error.strerror}); choose another file"
        ) from error

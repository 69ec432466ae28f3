"""The command `vocabulary`."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from fedtrain.cli import add_overrides


def register(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add `vocabulary`."""
    parser = subparsers.add_parser(
        "vocabulary",
        help="learn a byte-pair vocabulary for text from sums of counts over sites",
        description=(
            "Learn a byte-pair vocabulary for a scenario of text, on this machine. Each step adds\n"
            "up, over the sites, how often each token is followed by each other; what is below\n"
            "the minimum count is left out before anybody looks. The vocabulary becomes a public\n"
            "part of the scenario that is written (data.vocabulary). Counts are not protected by\n"
            "differential privacy: under it, give a public vocabulary.\n\n"
            "Example:\n"
            "  fedtrain vocabulary shakespeare --set data.path=plays.txt --out tokens.toml"
        ),
    )
    parser.add_argument("scenario", metavar="SCENARIO", help="a scenario, a file or a name")
    add_overrides(parser)
    parser.add_argument("--size", type=int, default=256, metavar="N", help="tokens wanted")
    parser.add_argument(
        "--min-count", type=int, default=50, metavar="N", help="fewest times over all sites"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the scenario with it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from fedtrain.config import load_config, to_toml
    from fedtrain.data.speeches import learn_tokens
    from fedtrain.errors import RunDirectoryError
    from fedtrain.scenarios import find_scenario

    config = load_config(find_scenario(args.scenario), args.overrides)
    tokens = learn_tokens(config, size=args.size, min_count=args.min_count)
    if args.out is not None:
        data = config.data.model_copy(update={"vocabulary": tokens})
        try:
            args.out.write_text(to_toml(config.model_copy(update={"data": data})), encoding="utf-8")
        except OSError as error:
            raise RunDirectoryError(
                f"{args.out}: cannot be written ({error.strerror}); choose another file"
            ) from error
    if args.json:
        sys.stdout.write(json.dumps({"vocabulary": list(tokens)}) + "\n")
        return 0
    longest = sorted(tokens, key=len, reverse=True)[:8]
    sys.stdout.write(f"{len(tokens)} tokens, the longest {', '.join(map(repr, longest))}\n")
    sys.stdout.write(f"{args.out}\n" if args.out else "--out FILE writes a scenario with them\n")
    return 0

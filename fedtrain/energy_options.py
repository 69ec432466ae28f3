"""The options that say what power a machine is assumed to take."""

import argparse
from typing import TYPE_CHECKING

from fedtrain.errors import ConfigError

if TYPE_CHECKING:
    from fedtrain.energy import Power


def add_power(parser: argparse.ArgumentParser, with_: str) -> None:
    """Add `--watts` and `--gpu-watts`, which are read with another option."""
    parser.add_argument(
        "--watts",
        type=float,
        metavar="W",
        help=f"with {with_}: assume so many watts for a core at work (default: the energy counted)",
    )
    parser.add_argument(
        "--gpu-watts",
        type=float,
        metavar="W",
        help="with --watts: and so many for a GPU at work (default: 0)",
    )


def read_power(args: argparse.Namespace, with_: str, *, given: bool) -> "Power | None":
    """Return the power that options assume, or None.

    Raises:
        ConfigError: One stands without what it is read with, or is out of bounds.
    """
    from fedtrain.energy import Power

    if args.watts is not None and not given:
        raise ConfigError(f"--watts is read with {with_}; add it")
    if args.watts is None and args.gpu_watts is not None:
        raise ConfigError("--gpu-watts is read with --watts; add it")
    return None if args.watts is None else Power(args.watts, args.gpu_watts or 0.0)

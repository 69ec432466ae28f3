"""The command `fedtrain`: finds its subcommands, guards them, turns errors into one line.

A subcommand is made by an entry point of the group `fedtrain.commands`: a function
`register(subparsers)` that adds parsers, each with `.set_defaults(run=function)`, where
`function(args)` returns the exit code. Modules that register must be cheap to import: nothing
heavy (torch, flwr, matplotlib) before a command that needs it runs.

Exit codes: 0 done, 2 wrong usage or config, 3 to 8 see `fedtrain.errors`, 70 a defect,
130 interrupted, 141 whoever read the output went away.
"""

import argparse
import difflib
import os
import re
import select
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any, Final, NoReturn

from fedtrain.errors import FedtrainError
from fedtrain.link.suites import restrict_suites

GROUP: Final = "fedtrain.commands"
EXIT_DEFECT: Final = 70
EXIT_INTERRUPTED: Final = 130
EXIT_BROKEN_PIPE: Final = 141
SECTIONS: Final = {
    "Set up": ("init", "config", "check", "privacy", "vocabulary"),
    "Run": ("stats", "simulate", "cross-validate", "sweep", "bench"),
    "Read results": ("runs", "show", "compare", "audit", "report", "verify", "sink"),
    "Use a model": (
        "evaluate",
        "predict",
        "explain",
        "export",
        "serve",
        "drift",
        "forgetting",
        "importance",
    ),
    "Deploy": ("federation", "server", "client", "demo"),
    "At a site": ("ledger",),
}
EXAMPLE: Final = """\
Example:
  fedtrain init study --from digits     write study.toml, every key explained
  fedtrain check study.toml             what would run, and what it would cost in epsilon
  fedtrain simulate study.toml          train; the last line of output is the run directory
  fedtrain show runs/study              the result, round by round and site by site
"""


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps line breaks of descriptions and names the default of every option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        has_default = action.default not in (None, False, [], (), argparse.SUPPRESS)
        if has_default and "(default" not in text:  # of argparse's own, or in words
            text += " (default: %(default)s)"
        return text


class Parser(argparse.ArgumentParser):
    """An argument parser whose usage errors are one line."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", HelpFormatter)
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Print the message and where help is in one line; exit with 2."""
        self.exit(2, f"{self.prog}: {_flatten(message)} (see {self.prog} --help)\n")


class MainParser(Parser):
    """The parser of `fedtrain` itself; its help lists the commands by what they are for."""

    def format_help(self) -> str:
        """Return usage, commands in sections, options and an example."""
        commands = _list_commands(self)
        known = [name for names in SECTIONS.values() for name in names]
        sections = {**SECTIONS, "More": tuple(name for name in commands if name not in known)}
        lines = ["usage: fedtrain COMMAND [options]", "", str(self.description), ""]
        for title, names in sections.items():
            found = [name for name in names if name in commands]
            lines += [f"{title}:"] if found else []
            lines += [f"  {name:<15}{commands[name]}" for name in found]
            lines += [""] if found else []
        lines += [
            "Options:",
            "  -h, --help  this text; fedtrain COMMAND --help explains a command",
            "  --version   the version",
            "  --debug     with any command: a traceback where something fails (default: one line)",
            "",
            EXAMPLE,
        ]
        return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The arguments after `fedtrain`; default: the process's own.

    Returns:
        The exit code. Nothing but a defect of the interpreter raises.
    """
    restrict_suites()  # before any command loads flwr, and with it grpc
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    return _guard(lambda: _run([part for part in arguments if part != "--debug"]), debug=debug)


def build_parser() -> tuple[Parser, "argparse._SubParsersAction[Any]"]:
    """Build the parser with the commands of all entry points.

    Returns:
        The parser, and the action that holds the commands' parsers by name.
    """
    parser = MainParser(
        prog="fedtrain",
        description="Train a PyTorch model on data that may not move, with checkable privacy.",
    )
    parser.add_argument("--version", action="version", version=f"fedtrain {_read_version()}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for entry in sorted(metadata.entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            register = entry.load()
        except (ImportError, AttributeError) as error:
            _print_error(f"the commands of {entry.value} cannot be loaded: {error}")
            continue
        register(subparsers)
    return parser, subparsers


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Add `--set`, which changes keys of a scenario; see `fedtrain.config.load_config`."""
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="change one key, e.g. federation.rounds=20; may be repeated (default: none)",
    )


def _run(arguments: list[str]) -> int:
    parser, subparsers = build_parser()
    if not arguments:
        parser.error("give a command, e.g. fedtrain simulate digits")
    first = arguments[0]
    if not first.startswith("-") and first not in subparsers.choices:
        parser.error(f"unknown command '{first}'; {_suggest(first, list(subparsers.choices))}")
    args, unknown = parser.parse_known_args(arguments)
    if args.command is None:
        parser.error(f"unknown option '{first}'")
    command = subparsers.choices[args.command]
    if unknown:
        options = re.findall(r"--[a-z][a-z-]*", command.format_help())
        command.error(f"unknown argument '{unknown[0]}'; {_suggest(unknown[0], options)}")
    if not hasattr(args, "run"):
        command.error("incomplete command")
    code: int = args.run(args)
    sys.stdout.flush()
    return code


def _guard(function: Callable[[], int], *, debug: bool) -> int:
    """Run a function; turn whatever it raises into one line and an exit code."""
    try:
        return function()
    except SystemExit as leave:  # argparse, after its own message
        return leave.code if isinstance(leave.code, int) else int(leave.code is not None)
    except FedtrainError as error:
        _print_traceback(debug=debug)
        _print_error(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _print_traceback(debug=debug)
        _print_error("interrupted")
        return EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the outermost guard
        if isinstance(error, BrokenPipeError) and _is_stdout_closed():
            return EXIT_BROKEN_PIPE
        _print_traceback(debug=debug)
        text = f"unexpected {type(error).__name__}: {str(error)[:300]}"
        _print_error(text if debug else f"{text}; run again with --debug for the traceback")
        return EXIT_DEFECT


def _is_stdout_closed() -> bool:
    """Say whether nobody reads standard output any more; if so, discard what is left of it."""
    try:
        number = sys.stdout.fileno()
    except OSError:  # not a file
        return False
    poll = select.poll()
    poll.register(number, 0)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    return True


def _print_error(message: str) -> None:
    sys.stderr.write(f"fedtrain: {_flatten(message)}\n")


def _print_traceback(*, debug: bool) -> None:
    if debug:
        traceback.print_exc()


def _flatten(text: str) -> str:
    return " ".join(text.split())


def _list_commands(parser: argparse.ArgumentParser) -> dict[str, str]:
    """Return the help line of each command, in the order of registration."""
    commands = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            commands = {choice.dest: choice.help or "" for choice in action._choices_actions}
    return commands


def _suggest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(dict.fromkeys(known))}"


def _read_version() -> str:
    try:
        return metadata.version("fedtrain")
    except metadata.PackageNotFoundError:
        return "(not installed)"

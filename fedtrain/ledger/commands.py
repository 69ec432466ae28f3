"""The command `fedtrain ledger`: what an officer at a site reads, checks and ends."""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any, Final

from fedtrain.errors import ConfigError

LIMIT: Final = 40
DESCRIPTION: Final = """\
A site's ledger of a data set: every run that used it, what each release cost, and what is left of
the lifetime budget. It belongs to the site; the coordinator never sees it, only heads of it.
"""
VERIFY_EPILOG: Final = """\
Exits with 0 where all of it holds, with 8 where something does not. Whoever has the site's key can
shorten the ledger or write it anew: only a head that was noted elsewhere shows that. `show` prints
the head; a coordinator's run directory notes one a round.
"""


def register(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add `ledger`."""
    parser = subparsers.add_parser(
        "ledger", help="a site's ledger: show, verify, budget, close", description=DESCRIPTION
    )
    kinds = parser.add_subparsers(metavar="WHAT", required=True)
    _register_show(kinds)
    _register_budget(kinds)
    _register_verify(kinds)
    _register_close(kinds)


def _register_show(kinds: "argparse._SubParsersAction[Any]") -> None:
    show = _add(kinds, "show", "list the entries, and the head to note elsewhere", _run_show)
    form = show.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object (default: table)")
    form.add_argument(
        "--all", action="store_true", help=f"print every entry (default: the last {LIMIT})"
    )


def _register_budget(kinds: "argparse._SubParsersAction[Any]") -> None:
    budget = _add(kinds, "budget", "show what is committed, reserved and left", _run_budget)
    budget.add_argument("--json", action="store_true", help="print one JSON object (default: bar)")
    budget.add_argument(
        "--picture",
        metavar="FILE.png",
        help="draw it, too; an older file is replaced (default: none)",
    )


def _register_verify(kinds: "argparse._SubParsersAction[Any]") -> None:
    verify = _add(
        kinds,
        "verify",
        "check signatures, chain, costs, balances and bytes",
        _run_verify,
        epilog=VERIFY_EPILOG,
    )
    verify.add_argument(
        "--head",
        dest="heads",
        action="append",
        default=[],
        metavar="HEX[:INDEX]",
        help="a head that was noted elsewhere; may be repeated (default: none)",
    )
    verify.add_argument(
        "--run",
        dest="run_directory",
        metavar="RUN_DIR",
        help="take the heads that a coordinator noted in a run directory (default: none)",
    )
    verify.add_argument("--site", metavar="NAME", help="with --run: this site's name in that run")
    verify.add_argument(
        "--key",
        metavar="FILE",
        help="the site's public key, PEM (default: the one that the ledger names)",
    )
    verify.add_argument(
        "--json", action="store_true", help="print one JSON object (default: table)"
    )


def _register_close(kinds: "argparse._SubParsersAction[Any]") -> None:
    close = _add(
        kinds, "close", "end a run and give back what it reserved and never released", _run_close
    )
    close.add_argument("name", metavar="RUN", help="the run, as `show` names it")
    close.add_argument(
        "--identity", required=True, metavar="FILE", help="the site's identity key file"
    )


def _add(
    kinds: "argparse._SubParsersAction[Any]",
    name: str,
    summary: str,
    run: Any,
    *,
    epilog: str | None = None,
) -> argparse.ArgumentParser:
    description = f"{summary[0].upper()}{summary[1:]}."
    parser: argparse.ArgumentParser = kinds.add_parser(
        name, help=summary, description=description, epilog=epilog
    )
    parser.add_argument("folder", metavar="FOLDER", help="the ledger's folder")
    parser.set_defaults(run=run)
    return parser


def _run_show(args: argparse.Namespace) -> int:
    from fedtrain.ledger.summary import render_entries
    from fedtrain.ledger.verify import read_entries
    from fedtrain.report.tables import make_console

    entries = read_entries(Path(args.folder))
    console = make_console(sys.stdout)
    rendered = render_entries(entries, None if args.all else LIMIT)
    if not args.json:
        console.print(rendered)
        return 0
    head = entries[-1].to_head()
    tree = {
        "head": {"digest": head.digest, "index": head.index},
        "entries": [entry.model_dump() for entry in entries],
    }
    sys.stdout.write(json.dumps(tree, allow_nan=False) + "\n")
    return 0


def _run_budget(args: argparse.Namespace) -> int:
    from fedtrain.ledger.account import Account
    from fedtrain.ledger.summary import build_budget, render_budget
    from fedtrain.ledger.verify import read_entries
    from fedtrain.report.tables import make_console

    picture = None if args.picture is None else Path(args.picture)
    if picture is not None and picture.suffix.lower() != ".png":
        raise ConfigError(f"--picture {picture}: it is a PNG; give a name that ends in .png")
    entries = read_entries(Path(args.folder))
    account = Account.replay(entries)
    if args.json:
        sys.stdout.write(json.dumps(build_budget(account), allow_nan=False) + "\n")
    else:
        make_console(sys.stdout).print(render_budget(account))
    if picture is not None:
        from fedtrain.ledger.picture import draw_budget

        try:
            draw_budget(entries, picture)
        except OSError as error:
            raise ConfigError(
                f"--picture {picture}: cannot be written ({error.strerror})"
            ) from error
        sys.stderr.write(f"wrote {picture}\n")
    return 0


def _run_verify(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from fedtrain.ledger.verify import read_noted_heads, verify_ledger
    from fedtrain.report.tables import make_console
    from fedtrain.report.verify import raise_first, render_checks
    from fedtrain.secagg.files import load_public_key

    heads = [_parse_head(text) for text in args.heads]
    if (args.run_directory is None) != (args.site is None):
        raise ConfigError("--run and --site go together: give a run directory and a site's name")
    folder = Path(args.folder)
    if args.run_directory is not None:
        heads += read_noted_heads(Path(args.run_directory), args.site)
    key = None if args.key is None else load_public_key(Path(args.key)).hex()
    checks = verify_ledger(folder, heads=heads, public_key=key)
    if args.json:
        tree = {"checks": [asdict(check) for check in checks]}
        sys.stdout.write(json.dumps(tree) + "\n")
    else:
        make_console(sys.stdout).print(render_checks(folder, checks))
    raise_first(checks)
    return 0


def _run_close(args: argparse.Namespace) -> int:
    from fedtrain.ledger.site_ledger import SiteLedger
    from fedtrain.report.tables import format_count
    from fedtrain.secagg.files import load_identity

    ledger = SiteLedger(Path(args.folder), load_identity(Path(args.identity)))
    refunded = ledger.close(args.name)
    sys.stdout.write(f"closed {args.name}: {format_count(refunded, 'round')} given back\n")
    return 0


def _parse_head(text: str) -> Any:
    from fedtrain.ledger.verify import NotedHead

    match = re.fullmatch(r"([0-9a-fA-F]{64})(?::([0-9]{1,15}))?", text)
    if match is None:
        raise ConfigError(
            f"--head {text[:80]}: not 64 hex digits, with :INDEX behind them where it is known"
        )
    index = None if match[2] is None else int(match[2])
    return NotedHead(match[1].lower(), index)

"""The command `fedtrain server`: make, start and operate a coordinator."""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from fedtrain.cli import add_overrides
from fedtrain.errors import ConfigError, RunFailedError
from fedtrain.link.suites import restrict_suites
from fedtrain.membership.consent import confirm

from . import statistics_commands, vocabulary_commands

DESCRIPTION: Final = """\
A coordinator: it asks sites to train and adds up what they answer. It holds no data and no key that
could read a masked update; who belongs to the federation is decided by the root alone.
"""
EPILOG: Final = """\
The operator's folder (--as) holds the key and certificate of an admin, a researcher or an auditor.
By default it is ./operator, ./coordinator/admin or ./admin, whichever is there first.
"""
OPERATOR_FOLDERS: Final = ("operator", "coordinator/admin", "admin")
_WAIT_SECONDS: Final = 1.0
_ENDS: Final = ("finished", "stopped", "failed")


def register(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add `server`."""
    restrict_suites()  # before anything loads grpc
    parser = subparsers.add_parser(
        "server",
        help="the coordinator: init, join, start; run, status, runs, sites, log, stop, resume",
        description=DESCRIPTION,
    )
    kinds = parser.add_subparsers(metavar="WHAT", required=True)
    _register_folder_commands(kinds)
    _register_start(kinds)
    _register_run(kinds)
    summary = "ask the sites for statistics; trains nothing"
    statistics_commands.add_arguments(_add(kinds, "stats", summary, _run_stats, operator=True))
    summary = "learn a byte-pair vocabulary of the sites' texts"
    learning = _add(kinds, "vocabulary", summary, _run_vocabulary, operator=True)
    vocabulary_commands.add_arguments(learning)
    _register_readers(kinds)
    _register_changes(kinds)


def _register_folder_commands(kinds: "argparse._SubParsersAction[Any]") -> None:
    init = _add(kinds, "init", "make a coordinator's folder, and its administrator's", _run_init)
    init.add_argument("folder", metavar="DIR", type=Path, help="the folder to make")
    init.add_argument(
        "--address", required=True, metavar="HOST:PORT", help="what sites and operators dial"
    )
    init.add_argument("--name", default="coordinator", help="its name in the membership")
    init.add_argument("--admin", default="admin", help="the administrator's name there")
    join = _add(kinds, "join", "take the kit that the federation's root handed out", _run_join)
    join.add_argument("kit", metavar="KIT", type=Path, help="the kit")
    join.add_argument(
        "folder", metavar="DIR", type=Path, nargs="?", default=Path(), help="the folder"
    )
    join.add_argument(
        "--root-fingerprint",
        metavar="HEX",
        help="the root's fingerprint, as its owner read it out (default: asked for)",
    )
    join.add_argument("--yes", action="store_true", help="do not ask about the root's fingerprint")
    install = _add(kinds, "install", "take a newer membership", _run_install, operator=True)
    install.add_argument("membership", metavar="MEMBERSHIP", type=Path, help="the root's file")
    install.add_argument(
        "--dir",
        dest="folder",
        metavar="DIR",
        type=Path,
        help="a coordinator's folder on this machine (default: ask the coordinator, as --as)",
    )
    audit = _add(kinds, "audit", "check the chain of a coordinator's audit log", _run_audit)
    audit.add_argument("folder", metavar="DIR", type=Path, help="the coordinator's folder")


def _register_start(kinds: "argparse._SubParsersAction[Any]") -> None:
    start = _add(kinds, "start", "serve until SIGTERM or Ctrl-C", _run_start)
    start.add_argument(
        "folder", metavar="DIR", type=Path, nargs="?", default=Path(), help="the folder"
    )
    start.add_argument(
        "--metrics-port",
        type=int,
        metavar="PORT",
        help="loopback port of Prometheus metrics (default: as server.toml has it)",
    )


def _register_run(kinds: "argparse._SubParsersAction[Any]") -> None:
    run = _add(kinds, "run", "submit a scenario; prints the run's name", _run_run, operator=True)
    run.add_argument("scenario", metavar="SCENARIO.toml", help="a scenario, a file or a name")
    add_overrides(run)
    run.add_argument("--sites", metavar="A,B", help="sites of the run (default: all)")
    run.add_argument("--wait", action="store_true", help="wait for the run's end")


def _register_readers(kinds: "argparse._SubParsersAction[Any]") -> None:
    for name, summary, function in (
        ("status", "show how the coordinator is", _run_status),
        ("runs", "list runs", _run_runs),
        ("sites", "list sites", _run_sites),
    ):
        reader = _add(kinds, name, summary, function, operator=True)
        reader.add_argument("--json", action="store_true", help="print JSON (default: tables)")
    log = _add(kinds, "log", "print a log", _run_log, operator=True)
    log.add_argument(
        "name", metavar="RUN", nargs="?", default="", help="a run (default: the coordinator's own)"
    )
    log.add_argument("--follow", action="store_true", help="print what is written from now on, too")
    fetch = _add(kinds, "fetch", "copy a run's directory here", _run_fetch, operator=True)
    fetch.add_argument("name", metavar="RUN", help="the run")
    fetch.add_argument("--out", type=Path, metavar="DIR", help="folder to make (default: RUN)")


def _register_changes(kinds: "argparse._SubParsersAction[Any]") -> None:
    for name, summary, function in (
        ("stop", "stop a run; it can be resumed", _run_stop),
        ("resume", "queue a run again that was stopped or failed", _run_resume),
    ):
        change = _add(kinds, name, summary, function, operator=True)
        change.add_argument("name", metavar="RUN", help="the run")


def _add(
    kinds: "argparse._SubParsersAction[Any]",
    name: str,
    summary: str,
    run: Callable[[argparse.Namespace], int],
    *,
    operator: bool = False,
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = kinds.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=EPILOG if operator else None,
    )
    if operator:
        parser.add_argument(
            "--as", dest="operator", type=Path, metavar="FOLDER", help="the operator's folder"
        )
    parser.set_defaults(run=run)
    return parser


def _run_init(args: argparse.Namespace) -> int:
    from fedtrain.membership.files import REQUEST_FILE
    from fedtrain.membership.names import parse_address
    from fedtrain.membership.records import ADMIN, COORDINATOR
    from fedtrain.membership.requests import compute_fingerprint, create_request

    from .folder import ADMIN_FOLDER
    from .settings import SETTINGS_FILE, ServerSettings, save_settings

    parse_address(args.address)
    folder, admin = args.folder, args.folder / ADMIN_FOLDER
    request = create_request(folder, args.name, COORDINATOR, args.address)
    if not (folder / SETTINGS_FILE).exists():
        save_settings(folder, ServerSettings(address=args.address))
    own = create_request(admin, args.admin, ADMIN)
    sys.stderr.write(
        f"coordinator {args.name}, fingerprint {compute_fingerprint(request)}\n"
        f"admin       {args.admin}, fingerprint {compute_fingerprint(own)}\n"
        "have the federation's root approve both requests; then\n"
        f"  fedtrain server join KIT {folder}\n"
        f"  fedtrain server join ADMIN_KIT {admin}\n"
        f"  fedtrain server install MEMBERSHIP --dir {folder}\n"
        f"  fedtrain server start {folder}\n"
    )
    sys.stdout.write(f"{folder / REQUEST_FILE}\n{admin / REQUEST_FILE}\n")
    return 0


def _run_join(args: argparse.Namespace) -> int:
    from fedtrain.membership.files import ROOT_FILE
    from fedtrain.membership.kits import install_kit, load_kit
    from fedtrain.membership.requests import compute_root_fingerprint

    kit = load_kit(args.kit)
    if args.root_fingerprint is None and not (args.folder / ROOT_FILE).exists():
        federation = kit.signed.membership.federation
        fingerprint = compute_root_fingerprint(kit.root_public_key)
        sys.stderr.write(f"the root of {federation} has fingerprint {fingerprint}\n")
        confirm("Its owner reads out the same?", yes=args.yes, option="--root-fingerprint HEX")
    membership = install_kit(args.folder, kit, root_fingerprint=args.root_fingerprint).membership
    sys.stderr.write(f"joined {membership.federation}, membership version {membership.version}\n")
    sys.stdout.write(f"{args.folder}\n")
    return 0


def _run_install(args: argparse.Namespace) -> int:
    from fedtrain.durable import read_small_file
    from fedtrain.membership.faults import MembershipError

    data = read_small_file(args.membership)
    try:
        version = _install_here(args.folder, data) if args.folder else None
        if version is None:
            operator = args.operator
            if operator is None and args.folder is not None:
                operator = args.folder / "admin"
            with _connect(operator) as calls:
                version = calls.install(data)
    except MembershipError as error:
        if error.reason != "older" or "already" not in str(error):
            raise
        sys.stderr.write(f"nothing to do: {error}\n")
        return 0
    sys.stderr.write(f"membership version {version} is installed\n")
    return 0


def _install_here(folder: Path, data: bytes) -> int | None:
    """Install a membership in a folder whose coordinator does not run; None where it does."""
    from fedtrain.membership.adoption import adopt_membership, load_pinned_root
    from fedtrain.membership.membership import verify_membership

    from .folder import RunsAlreadyError, hold_lock

    try:
        with hold_lock(folder):
            signed = verify_membership(data, load_pinned_root(folder))
            return adopt_membership(folder, signed).version
    except RunsAlreadyError:
        return None


def _run_audit(args: argparse.Namespace) -> int:
    from .audit_log import FILE, verify_audit_log

    entries, head = verify_audit_log(args.folder / FILE)
    sys.stdout.write(f"{entries} lines, head {head}\n")
    return 0


def _run_start(args: argparse.Namespace) -> int:
    from .serving import serve

    serve(args.folder, metrics_port=args.metrics_port)
    return 0


def _run_run(args: argparse.Namespace) -> int:
    from fedtrain.scenarios import find_scenario

    sites = statistics_commands.split_names(args.sites)
    with _connect(args.operator) as calls:
        run = calls.submit(find_scenario(args.scenario), overrides=args.overrides, sites=sites)
        if not args.wait:
            sys.stdout.write(f"{run}\n")
            return 0
        _wait(calls, run)
    sys.stdout.write(f"{run}\n")
    return 0


def _run_stats(args: argparse.Namespace) -> int:
    with _connect(args.operator) as calls:
        return statistics_commands.ask(calls, args, wait=_wait)


def _run_vocabulary(args: argparse.Namespace) -> int:
    with _connect(args.operator) as calls:
        return vocabulary_commands.learn(calls, args, wait=_wait)


def _wait(calls: Any, run: str) -> None:
    """Tell how a run goes until it has ended.

    Raises:
        RunFailedError: It did not finish.
    """
    last = ""
    while True:
        summary = calls.find_run(run)
        line = f"{run}: {summary.status}, round {summary.round} of {summary.rounds}"
        if summary.reason and summary.status not in _ENDS:
            line += f", {summary.reason}"
        if line != last:
            sys.stderr.write(f"{line}\n")
            last = line
        if summary.status == "finished":
            return
        if summary.status in _ENDS:
            raise RunFailedError(f"run {run} {summary.status}: {summary.reason}")
        time.sleep(_WAIT_SECONDS)


def _run_status(args: argparse.Namespace) -> int:
    from fedtrain.report.tables import make_console

    from .views import render_status, to_tree

    with _connect(args.operator) as calls:
        status, runs = calls.get_status(), calls.list_runs()
    if args.json:
        _print_json(to_tree(status))
    else:
        make_console(sys.stdout).print(render_status(status, runs))
    return 0


def _run_runs(args: argparse.Namespace) -> int:
    from fedtrain.report.tables import make_console

    from .views import render_runs, to_tree

    with _connect(args.operator) as calls:
        runs = calls.list_runs()
    if args.json:
        _print_json([to_tree(run) for run in runs])
    else:
        make_console(sys.stdout, 140).print(render_runs(runs))
    return 0


def _run_sites(args: argparse.Namespace) -> int:
    from fedtrain.report.tables import make_console

    from .views import render_sites, to_tree

    with _connect(args.operator) as calls:
        sites, version = calls.list_sites(), calls.get_status().membership_version
    if args.json:
        _print_json([to_tree(site) for site in sites])
    else:
        make_console(sys.stdout).print(render_sites(sites, version))
    return 0


def _run_log(args: argparse.Namespace) -> int:
    with _connect(args.operator) as calls:
        for text in calls.read_log(args.name, follow=args.follow):
            sys.stdout.write(text)
            sys.stdout.flush()
    return 0


def _run_fetch(args: argparse.Namespace) -> int:
    out = args.out or Path(args.name)
    with _connect(args.operator) as calls:
        calls.fetch(args.name, out)
    sys.stdout.write(f"{out}\n")
    return 0


def _run_stop(args: argparse.Namespace) -> int:
    with _connect(args.operator) as calls:
        sys.stdout.write(f"{args.name} {calls.stop(args.name)}\n")
    return 0


def _run_resume(args: argparse.Namespace) -> int:
    with _connect(args.operator) as calls:
        sys.stdout.write(f"{args.name} {calls.resume(args.name)}\n")
    return 0


def _connect(folder: Path | None) -> Any:
    from .operator import connect

    return connect(folder or _find_operator())


def _find_operator() -> Path:
    for name in OPERATOR_FOLDERS:
        if (Path(name) / "tls.crt").exists():
            return Path(name)
    raise ConfigError(
        f"there is no operator's folder here ({', '.join(OPERATOR_FOLDERS)}); name one with --as"
    )


def _print_json(tree: Any) -> None:
    sys.stdout.write(json.dumps(tree) + "\n")

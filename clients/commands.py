"""The command `fedtrain client`: what a site's owner, and whoever else joins a federation, does."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

from fedtrain.errors import ConfigError
from fedtrain.membership.consent import confirm

ROLES: Final = ("site", "researcher", "auditor", "admin")
DESCRIPTION: Final = """\
A member of a deployed federation: a site with its agent, or somebody who submits, audits or
administers runs. Keys are made here and never leave; only the request file does.

  fedtrain client init berlin --name berlin --data /srv/data    then hand out berlin/request.bin
  fedtrain client join berlin.kit berlin                        with what the root hands back
  fedtrain client check berlin                                  each line ok, or what to do
  fedtrain client start berlin                                  the agent, until it is stopped
"""
START_EPILOG: Final = """\
The agent dials out and opens no port. It ends with 0 when it was asked to (SIGTERM, leave), with 5
or 7 where a person must act: the site was revoked, another agent runs as this site, the versions do
not fit together. Whatever can heal is tried again; `status` says what is missing.
"""


def register(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add `client`."""
    parser = subparsers.add_parser(
        "client",
        help="a site's agent: init, join, check, start, status, pause, resume, leave",
        description=DESCRIPTION,
    )
    kinds = parser.add_subparsers(metavar="WHAT", required=True)
    _register_init(kinds)
    _register_join(kinds)
    check = _add(kinds, "check", "say what an agent would lack: each line ok, or what to do")
    check.add_argument(
        "--scenario",
        metavar="FILE",
        help="compare policy and data with this scenario, a file or a name (default: none)",
    )
    check.add_argument("--json", action="store_true", help="print one JSON object (default: lines)")
    check.set_defaults(run=_run_check)
    start = _add(kinds, "start", "run the agent until it is stopped", epilog=START_EPILOG)
    start.set_defaults(run=_run_start)
    status = _add(kinds, "status", "say what the agent is doing")
    form = status.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object (default: table)")
    form.add_argument(
        "--quiet", action="store_true", help="print nothing; exit with 1 unless it is at work"
    )
    status.set_defaults(run=_run_status)
    for name, summary in (
        ("pause", "take no new task until resumed"),
        ("resume", "take tasks again"),
        ("leave", "finish the task at hand, tell the coordinator, and end the agent"),
    ):
        _add(kinds, name, summary).set_defaults(run=_run_wish, wish=name)


def _register_init(kinds: "argparse._SubParsersAction[Any]") -> None:
    init = _add(kinds, "init", "make a folder with keys, and a request to join", required=True)
    init.add_argument("--name", required=True, metavar="NAME", help="the member's name")
    init.add_argument("--role", choices=ROLES, default=ROLES[0], help="what the member does")
    init.add_argument(
        "--data",
        metavar="PATH",
        help="the site's data, a file or folder; can be set later in agent.toml (default: none)",
    )
    init.set_defaults(run=_run_init)


def _register_join(kinds: "argparse._SubParsersAction[Any]") -> None:
    join = kinds.add_parser(
        "join",
        help="install the kit that the federation's root handed back",
        description="Install the kit that the federation's root handed back; again for a renewal.",
    )
    join.add_argument("kit", metavar="KIT", help="the kit's file")
    join.add_argument("folder", nargs="?", default=".", metavar="DIR", help="the member's folder")
    join.add_argument(
        "--root-fingerprint",
        metavar="HEX",
        help="the root's fingerprint, as its owner read it out (default: asked for)",
    )
    join.add_argument("--yes", action="store_true", help="do not ask about the root's fingerprint")
    join.set_defaults(run=_run_join)


def _add(
    kinds: "argparse._SubParsersAction[Any]",
    name: str,
    summary: str,
    *,
    required: bool = False,
    epilog: str | None = None,
) -> argparse.ArgumentParser:
    description = f"{summary[0].upper()}{summary[1:]}."
    parser: argparse.ArgumentParser = kinds.add_parser(
        name, help=summary, description=description, epilog=epilog
    )
    if required:
        parser.add_argument("folder", metavar="DIR", help="the folder to make")
    else:
        parser.add_argument(
            "folder", nargs="?", default=".", metavar="DIR", help="the site's folder"
        )
    return parser


def _run_init(args: argparse.Namespace) -> int:
    from fedtrain.membership.files import REQUEST_FILE
    from fedtrain.membership.names import check_name
    from fedtrain.membership.requests import compute_fingerprint, create_request

    folder = Path(args.folder)
    check_name(args.name)
    if args.role == ROLES[0]:
        _make_site(folder, args.name, args.data)
    elif args.data is not None:
        raise ConfigError(f"--data is a site's, a {args.role} has none; leave it out")
    request = create_request(folder, args.name, args.role)
    path = folder / REQUEST_FILE
    _tell(
        f"fingerprint  {compute_fingerprint(request)}",
        f"hand {path} to the federation's root, and read out the fingerprint; nothing in the file"
        " is secret",
        f"with the kit that comes back: fedtrain client join KIT {folder}",
    )
    sys.stdout.write(f"{path}\n")
    return 0


def _make_site(folder: Path, name: str, data: str | None) -> None:
    """Make what is missing of a site's folder: a command that was killed is given again."""
    from .agent_folder import open_agent_folder
    from .agent_settings import SETTINGS_FILE, AgentSettings, save_settings
    from .custody import SITE_FILE, create_custody, open_custody

    if data is not None and not Path(data).exists():
        raise ConfigError(f"--data {data}: no such file or folder; correct it, or leave it out")
    if (folder / SITE_FILE).exists():
        own = open_custody(folder).name
        if own != name:
            raise ConfigError(f"{folder} is the folder of site {own!r}; name another")
    else:
        create_custody(folder, name)
    if not (folder / SETTINGS_FILE).exists():
        settings = AgentSettings()
        if data is not None:
            settings = AgentSettings(data_path=str(Path(data).resolve()))
        save_settings(folder, settings)
    open_agent_folder(folder)


def _run_join(args: argparse.Namespace) -> int:
    from fedtrain.membership.files import ROOT_FILE
    from fedtrain.membership.kits import install_kit, load_kit
    from fedtrain.membership.requests import compute_root_fingerprint

    folder, kit = Path(args.folder), load_kit(Path(args.kit))
    fingerprint = compute_root_fingerprint(kit.root_public_key)
    is_first = not (folder / ROOT_FILE).exists()
    if is_first and args.root_fingerprint is None:
        _tell(f"the root of {kit.signed.membership.federation} has fingerprint {fingerprint}")
        confirm("Its owner reads out the same?", yes=args.yes, option="--root-fingerprint HEX")
    signed = install_kit(folder, kit, root_fingerprint=args.root_fingerprint)
    membership = signed.membership
    _tell(
        f"joined {membership.federation}, membership version {membership.version}, coordinator"
        f" {membership.coordinator}"
    )
    if (folder / "site.toml").exists():
        _tell(f"next: fedtrain client check {folder}, then fedtrain client start {folder}")
    sys.stdout.write(f"{folder}\n")
    return 0


def _run_check(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from .preflight import check_site

    findings = []
    for finding in check_site(Path(args.folder), args.scenario):
        findings.append(finding)
        if not args.json:
            mark = "ok " if finding.is_ok else "FIX"
            sys.stdout.write(f"{mark} {finding.name:<12} {finding.text}\n")
            sys.stdout.flush()
    if args.json:
        sys.stdout.write(json.dumps({"findings": [asdict(one) for one in findings]}) + "\n")
    return int(not all(finding.is_ok for finding in findings))


def _run_start(args: argparse.Namespace) -> int:
    from .running import run_agent

    run_agent(Path(args.folder))
    return 0


def _run_status(args: argparse.Namespace) -> int:
    from .agent_folder import is_running
    from .agent_status import load_status
    from .status_report import build_report, is_at_work, render_report

    folder = _find_agent_folder(args.folder)
    status, running = load_status(folder.status), is_running(folder)
    if args.quiet:
        return int(not is_at_work(status, running=running))
    if args.json:
        sys.stdout.write(json.dumps(build_report(status, running=running)) + "\n")
        return 0
    from fedtrain.report.tables import make_console

    make_console(sys.stdout).print(render_report(status, running=running))
    return 0


def _run_wish(args: argparse.Namespace) -> int:
    from .agent_folder import is_running
    from .control import Wish, write_wish

    folder, wish = (
        _find_agent_folder(args.folder),
        Wish("run" if args.wish == "resume" else args.wish),
    )
    running = is_running(folder)
    if wish is Wish.LEAVE and not running:
        _tell("no agent runs here; nothing was changed")
        return 0
    write_wish(folder, wish)
    done = {Wish.PAUSE: "takes no new task", Wish.RUN: "takes tasks", Wish.LEAVE: "leaves"}[wish]
    _tell(f"the agent {done}" if running else f"no agent runs here; the next one {done}")
    return 0


def _find_agent_folder(folder: str) -> Any:
    from .agent_folder import open_agent_folder
    from .custody import SITE_FILE

    site = Path(folder)
    if not (site / SITE_FILE).exists():
        raise ConfigError(f"{site} is no site's folder; make one with fedtrain client init")
    return open_agent_folder(site)


def _tell(*lines: str) -> None:
    sys.stderr.write("".join(f"{line}\n" for line in lines))

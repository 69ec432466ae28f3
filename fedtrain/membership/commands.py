"""The command `fedtrain federation`: what the owner of the root does, and a member's renewal."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any, Final

from fedtrain.membership.consent import confirm

DESCRIPTION: Final = """\
Decide who belongs to a federation. The folder that `new` makes holds the root key: whoever has it
decides, so keep it on a machine of its own, with a copy. The coordinator needs nothing of it but
membership.bin.
"""
NEW_EPILOG: Final = """\
Example:
  fedtrain federation new heart-root --name heart --coordinator train.example.org:7443

Members are to compare the root's fingerprint, which is printed, when they join.
"""
APPROVE_EPILOG: Final = """\
Example:
  fedtrain federation approve heart-root request.bin
  fedtrain federation approve heart-root request.bin --yes --fingerprint "8061 92f7 ..."

Have the applicant read its fingerprint out over another way than the request came, and compare. A
member that renews its TLS key is approved the same way. Who lost its identity key needs --replace.
"""
REVOKE_EPILOG: Final = """\
Example:
  fedtrain federation revoke heart-root ward-3

The coordinator cuts the member off as soon as it has the new membership.
"""
SHOW_EPILOG: Final = """\
Example:
  fedtrain federation show heart-root
  fedtrain federation show heart-root --json

A member's own folder can be shown as well: it holds the membership that it pinned.
"""
RENEW_EPILOG: Final = """\
Example:
  fedtrain federation renew site

The old key serves until the kit that comes back is installed. Nobody else is touched.
"""


def register(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add `federation`."""
    parser = subparsers.add_parser(
        "federation",
        help="the root: new, approve, revoke, show; a member's renew",
        description=DESCRIPTION,
    )
    kinds = parser.add_subparsers(metavar="WHAT", required=True)
    _register_new(kinds)
    _register_approve(kinds)
    _register_revoke(kinds)
    _register_show(kinds)
    _register_renew(kinds)


def _register_new(kinds: "argparse._SubParsersAction[Any]") -> None:
    new = _add(kinds, "new", "make a federation's root key and authority", _run_new, NEW_EPILOG)
    new.add_argument("folder", metavar="DIR", help="the root's folder; it must not exist")
    new.add_argument("--name", required=True, help="the federation's name")
    new.add_argument(
        "--coordinator", required=True, metavar="HOST:PORT", help="where members will find it"
    )


def _register_approve(kinds: "argparse._SubParsersAction[Any]") -> None:
    approve = _add(
        kinds, "approve", "take a member in, or renew its key", _run_approve, APPROVE_EPILOG
    )
    approve.add_argument("folder", metavar="DIR", help="the root's folder")
    approve.add_argument("request", metavar="REQUEST", help="the member's request file")
    approve.add_argument(
        "--out", metavar="KIT", help="where the kit goes (default: DIR/kits/NAME.kit)"
    )
    approve.add_argument(
        "--fingerprint", metavar="HEX", help="refuse any other than this (default: none)"
    )
    approve.add_argument(
        "--replace",
        action="store_true",
        help="let another identity or role take a known name (default: refused)",
    )
    _add_yes(approve)


def _register_revoke(kinds: "argparse._SubParsersAction[Any]") -> None:
    revoke = _add(kinds, "revoke", "strike a member off", _run_revoke, REVOKE_EPILOG)
    revoke.add_argument("folder", metavar="DIR", help="the root's folder")
    revoke.add_argument("name", metavar="NAME", help="the member")
    _add_yes(revoke)


def _register_show(kinds: "argparse._SubParsersAction[Any]") -> None:
    show = _add(kinds, "show", "list members and their certificates", _run_show, SHOW_EPILOG)
    show.add_argument("folder", metavar="DIR", help="the root's folder, or a member's")
    show.add_argument("--json", action="store_true", help="print one JSON object (default: table)")


def _register_renew(kinds: "argparse._SubParsersAction[Any]") -> None:
    renew = _add(
        kinds, "renew", "at a member: make a new TLS key and a request", _run_renew, RENEW_EPILOG
    )
    renew.add_argument("folder", metavar="DIR", help="the member's folder")
    renew.add_argument(
        "--address", metavar="HOST:PORT", help="a coordinator's new one (default: as before)"
    )


def _add(
    kinds: "argparse._SubParsersAction[Any]", name: str, summary: str, run: Any, epilog: str
) -> argparse.ArgumentParser:
    description = f"{summary[0].upper()}{summary[1:]}."
    parser: argparse.ArgumentParser = kinds.add_parser(
        name, help=summary, description=description, epilog=epilog
    )
    parser.set_defaults(run=run)
    return parser


def _add_yes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="do not ask (default: ask)")


def _run_new(args: argparse.Namespace) -> int:
    from fedtrain.membership.adoption import load_pinned_root
    from fedtrain.membership.federation import create_federation
    from fedtrain.membership.requests import compute_root_fingerprint

    folder = Path(args.folder)
    create_federation(folder, args.name, args.coordinator)
    fingerprint = compute_root_fingerprint(load_pinned_root(folder))
    _tell(
        f"made the root of {args.name}, fingerprint {fingerprint}",
        "keep a copy of this folder offline; whoever has root.key decides who belongs",
        f"next: fedtrain federation approve {folder} REQUEST, the coordinator's first",
    )
    sys.stdout.write(f"{folder}\n")
    return 0


def _run_approve(args: argparse.Namespace) -> int:
    from fedtrain.membership.admission import check_approval, check_fingerprint
    from fedtrain.membership.federation import approve, load_federation
    from fedtrain.membership.files import KITS_FOLDER, MEMBERSHIP_FILE, make_folder
    from fedtrain.membership.kits import save_kit
    from fedtrain.membership.records import COORDINATOR
    from fedtrain.membership.requests import compute_fingerprint, load_request

    folder = Path(args.folder)
    before = load_federation(folder).membership
    request = load_request(Path(args.request))
    effect = check_approval(before, request, replace=args.replace)
    _tell(
        f"{request.role} {request.name} {effect} ({before.federation})",
        *(f"address      {one} (so far {before.coordinator})" for one in request.claim.address),
        f"fingerprint  {compute_fingerprint(request)}",
    )
    if args.fingerprint is not None:
        check_fingerprint(request, args.fingerprint)
    confirm("The applicant read out this fingerprint. Approve?", yes=args.yes, option="--yes")
    kit = approve(folder, request, replace=args.replace)
    path = folder / KITS_FOLDER / f"{request.name}.kit" if args.out is None else Path(args.out)
    if args.out is None:
        make_folder(path.parent)
    save_kit(path, kit)
    _tell(f"hand {path} to {request.name}: {_name_join(request.role)} {path.name}")
    if kit.signed.membership != before and request.role != COORDINATOR:
        _tell_coordinator(folder / MEMBERSHIP_FILE, kit.signed.membership.version)
    sys.stdout.write(f"{path}\n")
    return 0


def _run_revoke(args: argparse.Namespace) -> int:
    from fedtrain.membership.admission import get_member
    from fedtrain.membership.federation import load_federation, revoke
    from fedtrain.membership.files import MEMBERSHIP_FILE

    folder = Path(args.folder)
    membership = load_federation(folder).membership
    entry = get_member(membership, args.name)
    _tell(f"{entry.role} {entry.name} is struck off {membership.federation}")
    confirm("Revoke?", yes=args.yes, option="--yes")
    signed = revoke(folder, args.name)
    _tell_coordinator(folder / MEMBERSHIP_FILE, signed.membership.version)
    sys.stdout.write(f"{folder / MEMBERSHIP_FILE}\n")
    return 0


def _run_show(args: argparse.Namespace) -> int:
    from fedtrain.membership.summary import build_summary, render_summary
    from fedtrain.report.tables import make_console

    tree = build_summary(Path(args.folder))
    if args.json:
        sys.stdout.write(json.dumps(tree) + "\n")
    else:
        make_console(sys.stdout).print(render_summary(tree, now=int(time.time())))
    return 0


def _run_renew(args: argparse.Namespace) -> int:
    from fedtrain.membership.files import REQUEST_FILE
    from fedtrain.membership.member import load_member
    from fedtrain.membership.requests import compute_fingerprint, create_request, load_request

    folder = Path(args.folder)
    member = load_member(folder)
    claimed = "".join(load_request(folder / REQUEST_FILE).claim.address)
    address = claimed if args.address is None else args.address
    request = create_request(folder, member.name, member.role, address)
    path = folder / REQUEST_FILE
    _tell(
        f"fingerprint  {compute_fingerprint(request)}",
        f"hand {path} to the federation's root; then {_name_join(member.role)} KIT",
    )
    sys.stdout.write(f"{path}\n")
    return 0


def _name_join(role: str) -> str:
    return "fedtrain server join" if role == "coordinator" else "fedtrain client join"


def _tell_coordinator(path: Path, version: int) -> None:
    _tell(
        f"hand {path} (version {version}) to the coordinator: fedtrain server install {path.name}",
        "the other members fetch it from there; they need nothing new",
    )


def _tell(*lines: str) -> None:
    sys.stderr.write("".join(f"{line}\n" for line in lines))

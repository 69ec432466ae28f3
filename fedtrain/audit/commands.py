"""The command `audit`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fedtrain.cli import add_overrides

if TYPE_CHECKING:
    from fedtrain.audit.findings import Finding
    from fedtrain.audit.methods import AuditContext, Method
    from fedtrain.audit.power import SelfTest

DESCRIPTION: Final = """\
Attack a finished run, and compare what the attacks find with what the run claims. A theorem bounds
the leak from above, an attack from below; what contradicts the claim is an implementation that
does not do what the theorem takes for granted. Findings are kept in RUN/audit.
"""
EPILOG: Final = """\
Exits with 0 where nothing contradicts the claim, with 8 where something does; with --plant, with 0
where the planted fault was found in every repetition, with 8 where it was missed.

Examples:
  fedtrain audit runs/study                            every method that needs the run alone
  fedtrain audit runs/study --method sentinels --json
  fedtrain audit runs/study --plant noise/2            an auditor that cannot fail is worth nothing
  fedtrain audit runs/study --plant noise/4 --method sentinels --repeats 20
"""


def register(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add `audit`."""
    parser = subparsers.add_parser(
        "audit",
        help="attack a run, and compare what is found with what it claims",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument("path", nargs="?", type=Path, metavar="RUN", help="a finished run")
    parser.add_argument(
        "--method",
        action="append",
        default=[],
        metavar="NAME",
        help="what to try; may be repeated (default: what needs the run alone)",
    )
    parser.add_argument("--list", action="store_true", help="list the methods, and leave")
    parser.add_argument(
        "--plant",
        metavar="FAULT",
        help=(
            "break a copy of the run on purpose, which must be found: noise/2, noise/4, no-clip,"
            " no-mask or reused-noise"
        ),
    )
    parser.add_argument(
        "--repeats",
        type=int,
        metavar="N",
        help="audit N times with other seeds; print the rate of false alarms, and of faults found",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="of the audit (default: audit.seed)")
    parser.add_argument(
        "--quick", action="store_true", default=None, help="smaller samples (default: audit.quick)"
    )
    parser.add_argument(
        "--inverted-records",
        type=int,
        metavar="N",
        help="records that inversion searches for (default: audit.inverted_records)",
    )
    parser.add_argument(
        "--label-records",
        type=int,
        metavar="N",
        help="most records of a site in the step that label-leakage reads (default: the config's)",
    )
    add_overrides(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from fedtrain.errors import ConfigError

    if args.list:
        return _list_methods()
    if args.path is None:
        raise ConfigError("RUN is missing; give a run directory, or --list")
    _verify_sample(args)
    if args.repeats is not None and args.repeats < 1:
        raise ConfigError(f"--repeats {args.repeats} is below 1; give a number of audits")
    if args.plant is None and args.repeats is None:
        return _audit(args)
    return _test_auditor(args)


def _audit(args: argparse.Namespace) -> int:
    from fedtrain.audit.stage import choose_methods, perform_audit

    methods = choose_methods(args.method)
    context = _open(args)
    findings = perform_audit(context, methods, None if args.json else _announce)
    print_findings(findings, as_json=args.json)
    return raise_alarm(findings)


def _open(args: argparse.Namespace) -> "AuditContext":
    from fedtrain.audit.stage import open_context

    return open_context(
        args.path,
        args.overrides,
        seed=args.seed,
        quick=args.quick,
        inverted_records=args.inverted_records,
        label_records=args.label_records,
    )


def _verify_sample(args: argparse.Namespace) -> None:
    from fedtrain.errors import ConfigError

    for option, least in (("inverted_records", 4), ("label_records", 1)):
        value = getattr(args, option)
        if value is not None and value < least:
            name = option.replace("_", "-")
            raise ConfigError(f"--{name} {value} is below {least}; give more, or leave it out")


def _test_auditor(args: argparse.Namespace) -> int:
    from fedtrain.audit.findings import save_finding
    from fedtrain.audit.plants import find_plant, make_subject
    from fedtrain.audit.power import describe_self_test, measure_power
    from fedtrain.audit.stage import choose_methods
    from fedtrain.errors import AuditError
    from fedtrain.seal import extend_seal

    plant = find_plant(args.plant) if args.plant else None
    names = args.method or (plant.found_by if plant else ())
    methods = choose_methods(names)
    context = _open(args)
    if plant is not None:
        make_subject(context.config, seed=context.seed, plant=plant)  # refuse before any is run
    test = measure_power(context, methods, plant, repeats=args.repeats or 1)
    finding = describe_self_test(context, test)
    save_finding(args.path, finding)
    extend_seal(args.path)
    _print_test(test, finding, as_json=args.json)
    if plant is not None and test.found < test.runs:
        raise AuditError(
            f"--plant {plant.name} was found in {test.found} of {test.runs} audits by"
            f" {', '.join(method.name for method in methods)}; take more canaries, or"
            f" --method {' --method '.join(plant.found_by)}"
        )
    return 0


def raise_alarm(findings: "Sequence[Finding]") -> int:
    """Return 0 where no finding contradicts the claim.

    Raises:
        AuditError: One does.
    """
    from fedtrain.errors import AuditError

    broken = [finding.method for finding in findings if finding.verdict == "violated"]
    if broken:
        raise AuditError(
            f"{', '.join(broken)}: the run does not keep what it claims; do not release its model,"
            " and find the fault"
        )
    return 0


def print_findings(findings: "Sequence[Finding]", *, as_json: bool) -> None:
    """Print findings as a table, or as one JSON object."""
    from fedtrain.audit.tables import render_findings
    from fedtrain.report.tables import make_console

    if as_json:
        trees = [json.loads(finding.to_json()) for finding in findings]
        sys.stdout.write(json.dumps({"findings": trees}, allow_nan=False) + "\n")
        return
    make_console(sys.stdout).print(render_findings(findings))


def _print_test(test: "SelfTest", finding: "Finding", *, as_json: bool) -> None:
    from fedtrain.audit.tables import render_self_test
    from fedtrain.report.tables import make_console

    if as_json:
        sys.stdout.write(json.dumps(json.loads(finding.to_json()), allow_nan=False) + "\n")
        return
    make_console(sys.stdout).print(render_self_test(test, finding))


def _announce(method: "Method") -> None:
    sys.stderr.write(f"{method.name}: {method.headline}\n")


def _list_methods() -> int:
    from fedtrain.audit.methods import load_methods
    from fedtrain.report.tables import make_console, make_table

    rows = [(one.name, one.headline, one.needs) for one in load_methods().values()]
    make_console(sys.stdout).print(make_table(("method", "what it does", "needs"), rows, texts=3))
    return 0

"""The command `report`: makes the report of a run, lets a site vouch, compares runs."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

from fedtrain.errors import ConfigError

EPILOG: Final = """\
Writes report.json, report.html, model_card.md and registry.yaml. A run that does not verify gets no
report. A site signs for its own ledger (--site, at the site, with a copy of the run directory)
before the coordinator makes and signs the report (--key). A simulation's keys follow from its seed.
"""


def register(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add `report`."""
    summary = "write a run's report: what it guarantees, spent and was tested for"
    parser = subparsers.add_parser(
        "report",
        help=summary,
        description=f"{summary[:1].upper()}{summary[1:]}.",
        epilog=EPILOG,
    )
    parser.add_argument(
        "runs", nargs="*", metavar="RUN", help="a run directory, or its name in runs/"
    )
    parser.add_argument(
        "--out", metavar="DIR", help="where the files go (default: the run directory)"
    )
    parser.add_argument("--roster", metavar="FILE", help="a roster.json to check against")
    parser.add_argument("--key", metavar="FILE", help="the coordinator's key file, to sign with")
    parser.add_argument(
        "--site", metavar="DIR", help="a site's folder: write its attestation, and no report"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--compare", action="store_true", help="draw utility against epsilon over several runs"
    )
    what.add_argument(
        "--schema", action="store_true", help="print the JSON Schema of report.json, and leave"
    )
    parser.set_defaults(run=_run_report)


def _run_report(args: argparse.Namespace) -> int:
    if args.schema:
        from fedtrain.report.document import build_schema

        sys.stdout.write(json.dumps(build_schema(), indent=2) + "\n")
        return 0
    if not args.runs:
        raise ConfigError("RUN is missing; give a run directory, or its name in runs/")
    if args.compare:
        return _compare(args)
    if len(args.runs) > 1:
        raise ConfigError(f"{len(args.runs)} runs given; a report is of one, --compare of several")
    return _attest(args) if args.site is not None else _report(args)


def _report(args: argparse.Namespace) -> int:
    from fedtrain.audit.evidence import Evidence
    from fedtrain.report.builder import build_report
    from fedtrain.report.files import sign_report, write_report
    from fedtrain.report.run import find_path
    from fedtrain.report.signing import attest_simulated
    from fedtrain.seal import extend_seal
    from fedtrain.secagg.files import load_identity

    path = find_path(args.runs[0])
    out = path if args.out is None else Path(args.out)
    identity = None if args.key is None else load_identity(Path(args.key))
    extend_seal(path)  # first: a file that was changed since the run ended is not reported on
    evidence = Evidence(path, None if args.roster is None else Path(args.roster))
    report = build_report(evidence)
    if attest_simulated(evidence):
        report = build_report(evidence)
    signed = sign_report(report, identity, seed=evidence.config.run.seed)
    written = write_report(signed, path, out)
    extend_seal(path)
    for file in written:
        sys.stdout.write(f"{file}\n")
    return 0


def _attest(args: argparse.Namespace) -> int:
    """Write a site's attestation: its own lines of the ledger, and its lifetime budget."""
    from fedtrain.audit.evidence import Evidence
    from fedtrain.report.run import find_path
    from fedtrain.report.signing import Attestation, make_statement, open_site, save_attestation
    from fedtrain.seal import extend_seal

    path = find_path(args.runs[0])
    name, identity, lifetime = open_site(Path(args.site))
    evidence = Evidence(path, None if args.roster is None else Path(args.roster))
    attestation = Attestation.sign(make_statement(evidence, name, lifetime), identity)
    attestation.verify(evidence)
    written = save_attestation(path, attestation)
    extend_seal(path)
    sys.stdout.write(f"{written}\n")
    return 0


def _compare(args: argparse.Namespace) -> int:
    from fedtrain.report.compare_page import render_comparison_page
    from fedtrain.report.run import find_run

    runs = [find_run(text) for text in args.runs]
    path = Path(args.out or ".") / "comparison.html"
    text = render_comparison_page(runs)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror})") from error
    sys.stdout.write(f"{path}\n")
    return 0

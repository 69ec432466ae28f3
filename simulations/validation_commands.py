"""The command `cross-validate`."""

import argparse
import json
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedtrain.cli import add_overrides

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from fedtrain.privacy.accounting import PrivacyCost

    from .validation import Validation

_FIRST = ("accuracy", "auc", "f1", "loss")
_MOST = 4


def register(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add `cross-validate`."""
    parser = subparsers.add_parser(
        "cross-validate",
        help="train and test several times: folds inside every site, or without one site",
        description=(
            "Train a scenario several times, each time tested on what it did not train on, and\n"
            "print mean and standard deviation. Runs on the same private records compose; what\n"
            "they cost together is printed. A held-out site is tested at that site.\n\n"
            "Example:\n"
            "  fedtrain cross-validate breast_cancer_prepared --folds 5\n"
            "  fedtrain cross-validate heart_disease --set data.path=heart --leave-one-site-out"
        ),
    )
    parser.add_argument("scenario", metavar="SCENARIO", help="a scenario, a file or a name")
    add_overrides(parser)
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--folds", type=int, metavar="K", help="k folds inside every site")
    how.add_argument(
        "--leave-one-site-out", action="store_true", help="a run without each site, tested on it"
    )
    how.add_argument("--hold-out", metavar="SITE", help="one run without this site, tested on it")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the runs (default: runs/NAME-cv-DATE)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from fedtrain.report.tables import make_console

    from .progress import ProgressLine, Silence
    from .validation import (
        compute_validation_costs,
        open_base,
        plan_folds,
        plan_sites,
        validate,
    )

    base = open_base(args.scenario, args.overrides)
    if args.folds is not None:
        parts = plan_folds(base, args.folds)
    else:
        parts = plan_sites(base, None if args.leave_one_site_out else [args.hold_out])
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = args.out or Path(base.run.directory) / f"{base.run.name}-cv-{stamp}"
    _announce(f"{len(parts)} runs; {_describe_costs(compute_validation_costs(parts))}")
    display = Silence() if args.json else ProgressLine()
    validation = validate(parts, base, folder, display, announce=_announce)
    if args.json:
        sys.stdout.write(json.dumps(_to_json(validation), allow_nan=False) + "\n")
        return 0
    make_console(sys.stdout).print(_render(validation))
    sys.stdout.write(f"{_describe_costs(validation.costs)}\n{folder}\n")
    return 0


def _announce(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _describe_costs(costs: "Sequence[PrivacyCost]") -> str:
    """Say what all runs together cost."""
    from fedtrain.report.tables import format_epsilon

    if not costs:
        return "nothing is protected (privacy.unit = 'none')"
    told = " and ".join(
        f"epsilon {format_epsilon(cost.epsilon)} at delta {cost.delta:g} for each {cost.unit}"
        for cost in costs
    )
    return f"{told}: all runs that train on it together; no guarantee covers the metrics"


def _render(validation: "Validation") -> "Table":
    from fedtrain.report.tables import NOTHING, label_metric, make_table

    means, deviations = validation.means, validation.deviations
    names = [name for name in _FIRST if name in means]
    names += [name for name in means if name not in names][: _MOST - len(names)]
    rows = [
        [one.name, *(_format(one.metrics.get(name), NOTHING) for name in names)]
        for one in validation.tested
    ]
    if deviations:
        told = [f"{means[name]:.4g} ± {deviations[name]:.2g}" for name in names]
        rows.append(["mean ± sd", *told])
    return make_table(("tested on", *map(label_metric, names)), rows, title="Cross-validation")


def _format(value: float | None, nothing: str) -> str:
    return nothing if value is None else f"{value:.4g}"


def _to_json(validation: "Validation") -> dict[str, Any]:
    costs = [
        {"epsilon": cost.epsilon, "delta": cost.delta, "unit": cost.unit}
        for cost in validation.costs
    ]
    return {
        "runs": [
            {"tested_on": one.name, "run": str(one.path), "metrics": one.metrics}
            for one in validation.tested
        ],
        "means": validation.means,
        "deviations": validation.deviations,
        "cost": costs[0] if costs else None,
        "costs": costs,
    }

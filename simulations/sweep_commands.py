"""The command `sweep`."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedtrain.privacy.accounting import PrivacyCost

    from .sweep import SweepResult
    from .sweep_study import Study

EXIT_INTERRUPTED: Final = 130


def register(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add `sweep`."""
    parser = subparsers.add_parser(
        "sweep",
        help="search hyper-parameters of a scenario (needs fedtrain[sweep])",
        description=(
            "Search hyper-parameters of a scenario by simulations: grid, random or TPE (Optuna),\n"
            "worse trials stopped at the median. Run again, a study goes on. Trials on the same\n"
            "private records compose: what they cost together is said before the first.\n\n"
            "A study is a TOML file:\n"
            "  [sweep]\n"
            '  scenario = "breast_cancer_prepared"   # a file, or a scenario that ships\n'
            '  metric = "val_loss"                   # a validation metric\n'
            '  sampler = "tpe"                       # or random, grid\n'
            '  pruner = "median"                     # or none\n'
            "  trials = 20\n"
            "  workers = 2\n"
            "  public_data = false                   # true: declares that nothing is private\n"
            "  [sweep.space]\n"
            '  "training.learning_rate" = { low = 0.01, high = 1.0, log = true }\n'
            '  "training.batch_size" = [16, 32, 64]\n'
            "  [sweep.fixed]\n"
            '  "federation.rounds" = 10\n'
        ),
    )
    parser.add_argument(
        "study", type=Path, metavar="STUDY", help="a study, a TOML file, or breast_cancer"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the study (default: sweeps/NAME)"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: the study's)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from fedtrain.errors import ConfigError

    from .sweep import compute_planned_sweep_costs, import_optuna, sweep

    import_optuna()
    if args.workers is not None and args.workers < 1:
        raise ConfigError(f"--workers {args.workers} is below 1; 2 is usual on two cores")
    folder = args.out or Path("sweeps") / args.study.stem
    study, costs = compute_planned_sweep_costs(args.study)
    sys.stderr.write(f"{study.count_trials()} trials; {_describe_costs(study, costs)}\n")
    try:
        result = sweep(args.study, folder, workers=args.workers)
    except KeyboardInterrupt:
        sys.stderr.write("fedtrain: interrupted; the same command goes on with the study\n")
        return EXIT_INTERRUPTED
    from .sweep_picture import draw_sweep

    draw_sweep(result, folder / "sweep.png")
    if args.json:
        sys.stdout.write(json.dumps(_to_json(result), allow_nan=False) + "\n")
    else:
        _print(result)
    return 0


def _print(result: "SweepResult") -> None:
    from fedtrain.report.tables import NOTHING, make_console, make_table

    names = list(result.study.space)
    sign = -1 if result.study.maximises else 1
    ranked = sorted(result.trials, key=lambda one: (one.value is None, sign * (one.value or 0)))
    rows = [
        [
            f"{one.number}{' *' if one is result.best else ''}",
            one.state,
            NOTHING if one.value is None else f"{one.value:.5g}",
            *(_format(one.values.get(name)) for name in names),
        ]
        for one in ranked
    ]
    headers = ("trial", "state", result.study.metric, *(n.rpartition(".")[2] for n in names))
    make_console(sys.stdout).print(make_table(headers, rows, texts=2, title="Trials, best first"))
    sys.stdout.write(f"{_describe_costs(result.study, result.costs)}\n{result.scenario}\n")


def _format(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _describe_costs(study: "Study", costs: "Sequence[PrivacyCost]") -> str:
    """Say what all trials cost together."""
    from fedtrain.report.tables import format_epsilon

    if study.public_data:
        return "on public data, as the study declares: nothing of a private record is released"
    if not costs:
        return "nothing is protected (privacy.unit = 'none')"
    told = " and ".join(
        f"epsilon {format_epsilon(cost.epsilon)} at delta {cost.delta:g} for each {cost.unit}"
        for cost in costs
    )
    return (
        f"{told}: all trials' training together, each in full; the choice between them rests on"
        " validation metrics, which no guarantee covers"
    )


def _to_json(result: "SweepResult") -> dict[str, Any]:
    costs = [
        {"epsilon": cost.epsilon, "delta": cost.delta, "unit": cost.unit} for cost in result.costs
    ]
    return {
        "metric": result.study.metric,
        "best": None if result.best is None else asdict(result.best),
        "trials": [asdict(trial) for trial in result.trials],
        "public_data": result.study.public_data,
        "cost": costs[0] if costs else None,
        "costs": costs,
        "scenario": str(result.scenario),
    }

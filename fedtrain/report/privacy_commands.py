"""The command `privacy`: a calculator for epsilon, noise and steps."""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fedtrain.errors import AuditError, ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fedtrain.privacy.accounting import PrivacyCost
    from fedtrain.privacy.cross_check import Answer
    from fedtrain.privacy.renyi import NeighbouringRelation
    from fedtrain.report.privacy_answers import Question

RELATIONS: Final = ("add_remove", "replace_one")
UNITS: Final = ("record", "person", "site")
DESCRIPTION: Final = """\
Compute what a run of steps with Gaussian noise on Poisson samples costs: nothing is trained and
no data is read. Every answer names its delta, unit, relation, accountant and error.
"""
EPILOG: Final = """\
A run's steps are rounds x local steps; under --unit site they are its rounds. Batches that are
shuffled rather than sampled are not covered: their epsilon can be many times as large. Under
--unit site the noise is that of the sum, counted as Gaussian; a run's discrete shares cost a
little more.

Examples:
  fedtrain privacy epsilon --noise-multiplier 1.1 --sample-rate 0.01 --steps 1000
  fedtrain privacy noise --target-epsilon 3 --sample-rate 0.0625 --steps 480
  fedtrain privacy noise --target-epsilon 8 --steps 50 --unit site --sites 10 --picture sites.png
  fedtrain privacy steps --target-epsilon 3 --noise-multiplier 1.1 --sample-rate 0.01
  fedtrain privacy compare --noise-multiplier 1.1 --sample-rate 0.01 --steps 1000
"""
COMPARE: Final = """\
Ask every accountant, in both relations: the privacy loss distribution (the reference), Opacus'
PRV, and Rényi bounds, ours and Opacus'. Exits with 8 where two of them cannot both be right.
Opacus' "gdp" is not offered: it is the central limit of many small steps and no bound. For noise
0.7, sample rate 0.01 and 120 steps it reports 1.06 where the true epsilon is 2.46.
"""


def register(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add `privacy`."""
    parser = subparsers.add_parser(
        "privacy",
        help="compute epsilon, noise or steps, without a run",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    kinds = parser.add_subparsers(metavar="WHAT", required=True)
    epsilon = _add(kinds, "epsilon", "the epsilon that noise and steps cost")
    _add_noise(epsilon)
    _add_steps(epsilon)
    _add_common(epsilon, "epsilon against steps, for several noises", run=_run_epsilon)
    noise = _add(kinds, "noise", "the smallest noise for a target epsilon")
    _add_target(noise)
    _add_steps(noise)
    picture = "epsilon against noise; with --sites, noise against sites"
    _add_common(noise, picture, run=_run_noise)
    steps = _add(kinds, "steps", "the most steps for a target epsilon")
    _add_target(steps)
    _add_noise(steps)
    _add_common(steps, "epsilon against steps, for several noises", run=_run_steps)
    compare = _add(kinds, "compare", "accountants and relations, side by side", COMPARE)
    _add_noise(compare)
    _add_steps(compare)
    picture = "epsilon against steps, by accountant and relation"
    _add_common(compare, picture, run=_run_compare, whole=False)


def _add(
    kinds: "argparse._SubParsersAction[Any]", name: str, summary: str, description: str = ""
) -> argparse.ArgumentParser:
    examples = [
        line for line in EPILOG.splitlines() if line.startswith(f"  fedtrain privacy {name}")
    ]
    parser: argparse.ArgumentParser = kinds.add_parser(
        name,
        help=summary,
        description=description or f"{summary.capitalize()}.",
        epilog="\n".join(["Example:", *examples]),
    )
    return parser


def _add_noise(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--noise-multiplier",
        type=float,
        required=True,
        metavar="Z",
        help="noise standard deviation / clip",
    )


def _add_steps(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--steps",
        type=_parse_count,
        required=True,
        metavar="T",
        help="all steps of the run; rounds under --unit site",
    )


def _add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--target-epsilon",
        type=float,
        required=True,
        metavar="E",
        help="what the whole run may cost",
    )


def _add_common(
    parser: argparse.ArgumentParser, picture: str, *, run: Any, whole: bool = True
) -> None:
    parser.add_argument(
        "--sample-rate",
        type=float,
        metavar="Q",
        help="probability of a unit in a step (default: 1 under --unit site, else to be given)",
    )
    parser.add_argument("--delta", type=float, default=1e-5, metavar="D", help="of the epsilon")
    if whole:
        parser.add_argument(
            "--relation",
            choices=RELATIONS,
            default=RELATIONS[0],
            help="neighbours: one unit more or less, or one exchanged",
        )
        parser.add_argument(
            "--sites",
            type=_parse_count,
            metavar="N",
            help="under --unit site: also say how large the noise is on the mean of N sites",
        )
    parser.add_argument("--unit", choices=UNITS, default=UNITS[0], help="what is protected")
    parser.add_argument(
        "--records",
        type=_parse_count,
        metavar="N",
        help="units in the data: a delta above 1/N is warned of",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--picture", metavar="FILE.png", help=f"draw {picture}")
    parser.set_defaults(run=run)


def _run_epsilon(args: argparse.Namespace) -> int:
    question = _build_question(args, noise_multiplier=args.noise_multiplier, steps=args.steps)
    cost = question.compute_cost()
    if args.picture:
        from fedtrain.report.privacy_curves import build_steps_figure

        _save(args, build_steps_figure(question, cost))
    _print_cost(args, question, cost)
    return 0


def _run_noise(args: argparse.Namespace) -> int:
    from fedtrain.privacy.calibration import calibrate_noise_multiplier

    question = _build_question(args, noise_multiplier=0.0, steps=args.steps)
    noise_multiplier = calibrate_noise_multiplier(
        target_epsilon=args.target_epsilon,
        target_delta=args.delta,
        sample_rate=question.sample_rate,
        steps=args.steps,
        neighbouring_relation=args.relation,
    )
    question = replace(question, noise_multiplier=noise_multiplier)
    cost = question.compute_cost()
    if args.picture:
        from fedtrain.report.privacy_curves import build_noise_figure, build_sites_figure

        build = build_noise_figure if args.sites is None else build_sites_figure
        _save(args, build(question, cost, target_epsilon=args.target_epsilon))
    _print_cost(args, question, cost, answer="noise_multiplier")
    return 0


def _run_steps(args: argparse.Namespace) -> int:
    from fedtrain.privacy.affordable_steps import compute_affordable_steps

    question = _build_question(args, noise_multiplier=args.noise_multiplier, steps=1)
    steps, _ = compute_affordable_steps(
        target_epsilon=args.target_epsilon,
        target_delta=args.delta,
        noise_multiplier=args.noise_multiplier,
        sample_rate=question.sample_rate,
        neighbouring_relation=args.relation,
    )
    one, question = question.compute_cost(), replace(question, steps=steps)
    cost = question.compute_cost()
    if args.picture:
        from fedtrain.report.privacy_curves import build_steps_figure

        _save(args, build_steps_figure(question, cost, target_epsilon=args.target_epsilon))
    _print_cost(args, question, cost, answer="steps", first=None if steps else one)
    return 0


def _run_compare(args: argparse.Namespace) -> int:
    from fedtrain.privacy.cross_check import cross_check, find_disagreements

    question = _build_question(args, noise_multiplier=args.noise_multiplier, steps=args.steps)
    checks = [
        cross_check([question.to_event()], delta=args.delta, neighbouring_relation=relation)
        for relation in RELATIONS
    ]
    answers = [answer for check in checks for answer in check]
    disagreements = [line for check in checks for line in find_disagreements(check)]
    if args.picture:
        from fedtrain.report.privacy_curves import build_comparison_figure

        _save(args, build_comparison_figure(question, answers))
    _print_comparison(args, question, answers, disagreements)
    if disagreements:
        raise AuditError(f"accountants disagree: {'; '.join(disagreements)}; do not use either")
    return 0


def _build_question(args: argparse.Namespace, *, noise_multiplier: float, steps: int) -> "Question":
    """Check what the options say together, before anything is computed."""
    from fedtrain.report.privacy_answers import Question, check_records

    if args.picture and Path(args.picture).suffix.lower() != ".png":
        raise ConfigError(
            f"--picture {args.picture}: the picture is a PNG; give a name that ends in .png"
        )
    sites = getattr(args, "sites", None)
    if sites is not None and (args.unit != "site" or sites < 1):
        raise ConfigError(
            f"--sites {sites} with --unit {args.unit}: give at least 1, and --unit site"
        )
    if args.sample_rate is None and args.unit != "site":
        raise ConfigError(
            f"--sample-rate is missing; --unit {args.unit} needs it, e.g. batch size / records"
        )
    check_records(args.records)
    rate = 1.0 if args.sample_rate is None else args.sample_rate
    relation: NeighbouringRelation = getattr(args, "relation", RELATIONS[0])
    question = Question(noise_multiplier, rate, steps, args.delta, relation, args.unit, sites)
    question.to_event()
    return question


def _print_cost(
    args: argparse.Namespace,
    question: "Question",
    cost: "PrivacyCost",
    *,
    answer: str = "epsilon",
    first: "PrivacyCost | None" = None,
) -> None:
    """Print a cost; `first` is what one step costs, where not even one is within the target."""
    from fedtrain.report.privacy_answers import (
        format_finite,
        list_warnings,
        render_cost,
        state_meaning,
        to_json,
    )
    from fedtrain.report.tables import make_console

    warnings = list_warnings(question, cost, args.records)
    if first is not None:
        warnings.insert(
            0,
            f"Not even one step is within target_epsilon = {args.target_epsilon:g}: it costs"
            f" {format_finite(first.epsilon)}; raise noise_multiplier or lower sample_rate.",
        )
    if args.json:
        sys.stdout.write(json.dumps(to_json(question, cost, warnings), allow_nan=False) + "\n")
        return
    console = make_console(sys.stdout)
    console.print(render_cost(question, cost, answer=answer))
    console.print(f"\n{state_meaning(cost)}")
    _print_end(args, warnings)


def _print_comparison(
    args: argparse.Namespace,
    question: "Question",
    answers: "list[Answer]",
    disagreements: list[str],
) -> None:
    from fedtrain.report.privacy_answers import (
        describe_unit,
        list_gaps,
        list_warnings,
        render_comparison,
        to_json_comparison,
    )
    from fedtrain.report.tables import make_console

    warnings = list_warnings(question, question.compute_cost(), args.records)
    if args.json:
        tree = to_json_comparison(question, answers, disagreements)
        sys.stdout.write(json.dumps(tree | {"warnings": warnings}, allow_nan=False) + "\n")
        return
    console = make_console(sys.stdout)
    console.print(f"epsilon at delta = {args.delta:g}, for {describe_unit(question)}")
    console.print(render_comparison(answers))
    agree = "The accountants agree: pld <= prv <= pld + 0.02, pld <= rdp."
    for line in [*list_gaps(answers), *(() if disagreements else (agree,))]:
        console.print(line)
    _print_end(args, warnings)


def _print_end(args: argparse.Namespace, warnings: list[str]) -> None:
    from fedtrain.report.tables import make_console

    for line in warnings:
        make_console(sys.stdout).print(f"Warning: {line}")
    if args.picture:
        sys.stdout.write(f"{args.picture}\n")


def _save(args: argparse.Namespace, figure: "Figure") -> None:
    from fedtrain.report.privacy_curves import save_figure

    try:
        save_figure(figure, Path(args.picture))
    except OSError as error:
        raise ConfigError(
            f"--picture {args.picture}: cannot be written ({error.strerror})"
        ) from error


def _parse_count(text: str) -> int:
    """Read a whole number, also as 1e6."""
    number = float(text)
    if not number.is_integer():
        raise argparse.ArgumentTypeError(f"{text} is not a whole number")
    return int(number) if "e" in text.lower() else int(text)

"""Several runs as one picture: utility against privacy, on a page of its own."""

from collections.abc import Sequence
from importlib import resources
from typing import Final

from fedtrain.errors import ConfigError
from fedtrain.report import elements as e
from fedtrain.report.compare import name_runs
from fedtrain.report.html import POLICY
from fedtrain.report.pictures import Dot, draw_scatter
from fedtrain.report.run import UTILITIES, Run
from fedtrain.report.tables import NOTHING, format_epsilon, label_metric

INCOMPARABLE: Final = (
    "These epsilons are for different units, deltas or neighbouring relations: they cannot be"
    " compared with each other, and stand side by side only to be looked up."
)
NOTE: Final = (
    "Further left is more private, further up is more useful. One run a setting: repeated runs"
    " would scatter, and choosing the best of several runs costs privacy that no single run shows."
)
UNBOUNDED: Final = "Without a finite epsilon, and so not in the picture: {names}."


def render_comparison_page(runs: Sequence[Run]) -> str:
    """Return the page.

    Args:
        runs: At least two.

    Raises:
        ConfigError: There are fewer, or no metric that all of them have.
    """
    if len(runs) < 2:
        raise ConfigError(f"--compare of {len(runs)} run; give two or more")
    key = _choose_metric(runs)
    labels = name_runs(runs)
    rows, dots, unbounded = [], [], []
    for label, run in zip(labels, runs, strict=True):
        epsilon, value = run.get_last("epsilon"), run.get_last(key)
        rows.append(_list_run(label, run, key))
        if epsilon is None:
            unbounded.append(label)
        elif value is not None:
            dots.append(Dot(label, epsilon, value))
    parts = [e.paragraph(NOTE)]
    if len({_identify(run) for run in runs}) > 1:
        parts.append(e.paragraph(INCOMPARABLE))
    if dots:
        picture = draw_scatter(dots, x_name="epsilon", y_name=label_metric(key))
        parts.append(e.figure(picture, f"{label_metric(key)} against epsilon, a point a run."))
    if unbounded:
        parts.append(e.paragraph(UNBOUNDED.format(names=", ".join(unbounded))))
    headers = ("Run", label_metric(key), "Epsilon", "Delta", "Unit", "Relation", "Rounds")
    parts.append(e.table(headers, rows, caption="The same in numbers", figures=(1, 2, 3, 6)))
    style = resources.files("fedtrain.report").joinpath("report.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Utility against privacy</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"<header>{e.paragraph('Comparison of runs', kind='kind')}"
        f"{e.heading('Utility against privacy', level=1)}</header>\n"
        f"<main>{e.section('runs', f'{len(runs)} runs', parts)}</main>\n</body>\n</html>\n"
    )


def _choose_metric(runs: Sequence[Run]) -> str:
    found = [key for key in UTILITIES if all(run.get_series(key) for run in runs)]
    if not found:
        raise ConfigError(
            "no metric is in all of these runs: under privacy set privacy.metrics = 'uncovered' to"
            " have one"
        )
    return found[0]


def _identify(run: Run) -> tuple[object, ...]:
    privacy = run.config.get("privacy", {})
    return (privacy.get("unit"), run.get_last("delta"), privacy.get("neighbouring_relation"))


def _list_run(label: str, run: Run, key: str) -> tuple[str, ...]:
    privacy, delta = run.config.get("privacy", {}), run.get_last("delta")
    value = run.get_last(key)
    return (
        label,
        NOTHING if value is None else f"{value:.4f}",
        format_epsilon(run.get_last("epsilon")),
        NOTHING if delta is None else f"{delta:g}",
        str(privacy.get("unit", "none")),
        str(privacy.get("neighbouring_relation", NOTHING)),
        f"{run.rounds_done}/{run.rounds_wanted}",
    )

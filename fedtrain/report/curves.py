"""Pictures of a run: utility by round, epsilon by round, runs compared.

Same input, same bytes: the figures are drawn by Agg in a fixed style, without date or version.
Colours are Okabe and Ito's, which colour-blind readers can tell apart.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedtrain.report.guarantees import Guarantee, list_guarantees
from fedtrain.report.labels import End, label_ends
from fedtrain.report.run import Run, to_finite
from fedtrain.report.tables import format_epsilon, label_metric

Points = list[tuple[float, float]]

BLACK, BLUE, ORANGE, GREEN = "#222222", "#0072B2", "#D55E00", "#009E73"
PALETTE: Final = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", BLACK, "#999999")
DASHES: Final = ("-", "--", ":", "-.")
STYLE: Final = {
    "figure.dpi": 150,
    "savefig.dpi": 150,
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "lines.markersize": 3.2,
    "legend.frameon": False,
    "path.simplify": False,
}
UTILITY_SERIES: Final = (
    ("test_accuracy", "test accuracy", BLUE, "-"),
    ("val_accuracy", "validation accuracy", ORANGE, "-"),
    ("test_auc", "test AUC", GREEN, "--"),
)
NUMBER_SERIES: Final = (
    ("test_r2", "test R2", BLUE, "-"),
    ("val_r2", "validation R2", ORANGE, "-"),
)
LOSS_SERIES: Final = (
    ("test_loss", "test loss", BLUE, "-"),
    ("val_loss", "validation loss", ORANGE, "-"),
    ("train_loss", "training loss", BLACK, "-"),
)
LOSSES: Final = ("test_loss", "val_loss", "train_loss")
SIZE: Final = (10.0, 4.2)
NOTE_SIZE: Final = (10.0, 2.4)
MARKER_LIMIT: Final = 40  # points of a curve up to which each has its marker


def draw_curves(
    metrics: Sequence[dict[str, Any]],
    path: Path,
    *,
    best_round: int | None = None,
    config: Mapping[str, Any] | None = None,
) -> None:
    """Draw accuracy, or R2 where numbers are predicted, and loss by round.

    Args:
        metrics: One flat dict a round; absent, null and not finite values are gaps.
        path: The PNG file to write.
        best_round: The round whose model was kept, marked if given.
        config: The resolved config as nested dicts; says why there are no metrics.
    """
    empty = _explain_empty(config or {})
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=SIZE, layout="constrained")
        left, right = figure.subplots(1, 2)
        if any(_get_points(metrics, key) for key, *_ in NUMBER_SERIES):
            _draw_panel(left, metrics, NUMBER_SERIES, title="R2 by round", empty=empty)
            left.set_ylabel("R2 (1 is exact, 0 the mean)")
        else:
            _draw_panel(left, metrics, UTILITY_SERIES, title="Accuracy by round", empty=empty)
            left.set_ylabel(_describe_utility(metrics))
            _limit_share(left)
        _draw_panel(right, metrics, LOSS_SERIES, title="Loss by round", empty=empty)
        right.set_ylabel("mean loss")
        for axes in (left, right):
            _mark_best(axes, best_round)
        _save(figure, path)


def draw_privacy(
    metrics: Sequence[dict[str, Any]], path: Path, *, config: Mapping[str, Any] | None = None
) -> None:
    """Draw each unit's epsilon by round, and utility against the first unit's.

    Args:
        metrics: One flat dict a round; without any epsilon the picture says so.
        path: The PNG file to write.
        config: The resolved config as nested dicts: units, and targets, which are drawn as lines.
    """
    spent = [one for one in _list_spent(config or {}) if _get_points(metrics, one.key)]
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=SIZE if spent else NOTE_SIZE, layout="constrained")
        if spent:
            left, right = figure.subplots(1, 2)
            _draw_spent(left, metrics, spent, targets=_get_targets(config or {}))
            if any(_get_pairs(metrics, spent[0].key, key) for key, *_ in UTILITY_SERIES):
                _draw_utility_by_epsilon(right, metrics, spent[0])
            elif _get_points(metrics, "update_norm"):
                _draw_clip(right, metrics)
            else:
                _set_rounds(right, title="Utility against epsilon", ylabel="")
                _write_empty(right, _explain_empty(config or {}))
        else:
            _write_no_privacy(figure, claimed=any("delta" in line for line in metrics))
        _save(figure, path)


def draw_comparison(runs: Sequence[Run], path: Path, *, labels: Sequence[str]) -> None:
    """Draw runs over each other: accuracy by round, and against epsilon, or loss by round.

    Args:
        runs: The runs.
        path: The PNG file to write.
        labels: What to call each run.
    """
    key = next((key for run in runs if (key := run.find_utility())), "test_accuracy")
    label = label_metric(key)
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(SIZE[0], SIZE[1] + 0.25 * ((len(runs) + 2) // 3)))
        figure.set_layout_engine("constrained")
        left, right = figure.subplots(1, 2)
        for index, run in enumerate(runs):
            points = run.get_series(key)
            text = labels[index] if points else f"{labels[index]} (no {label})"
            _plot(left, points, label=text, **_get_style(index))
        _set_rounds(left, title=f"{_capitalise(label)} by round", ylabel=label)
        if any(run.get_series("epsilon") for run in runs):
            right.set_title(f"{_capitalise(label)} against epsilon")
            right.set(xlabel=_describe_units(runs), ylabel=label)
            _draw_paths(right, runs, key)
        else:
            _draw_losses(right, runs)
        handles = left.get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=min(3, len(runs)))
        _save(figure, path)


def _draw_panel(
    axes: Axes,
    metrics: Sequence[dict[str, Any]],
    series: Sequence[tuple[str, str, str, str]],
    *,
    title: str,
    empty: str,
) -> None:
    ends: list[End] = []
    for key, label, colour, dashes in series:
        points = _get_points(metrics, key)
        if points:
            _plot(axes, points, color=colour, linestyle=dashes)
            ends.append((points[-1], label, colour))
    _set_rounds(axes, title=title, ylabel="")
    if ends:
        label_ends(axes, ends)
    else:
        _write_empty(axes, empty)


def _draw_spent(
    axes: Axes,
    metrics: Sequence[dict[str, Any]],
    guarantees: Sequence[Guarantee],
    *,
    targets: Mapping[str, float],
) -> None:
    """Draw each epsilon by round, with its target and its delta."""
    curves = [_get_points(metrics, one.key) for one in guarantees]
    highest = max([points[-1][1] for points in curves] + list(targets.values()))
    axes.set_ylim(0, 1.15 * highest or 1)
    ends: list[End] = []
    for one, points, colour in zip(guarantees, curves, PALETTE, strict=False):
        _plot(axes, points, color=colour)
        label = format_epsilon(points[-1][1])
        ends.append((points[-1], f"{one.name}: {label}" if len(curves) > 1 else label, colour))
        if one.prefix in targets:
            colour = ORANGE if len(curves) == 1 else colour
            _draw_target(axes, targets[one.prefix], colour)
    unit = f" of {guarantees[0].name}" if len(curves) == 1 and guarantees[0].name else ""
    label = f"epsilon{unit}{_describe_deltas(metrics, guarantees)}"
    _set_rounds(axes, title="Epsilon spent so far, maximum over sites", ylabel=label)
    label_ends(axes, ends)


def _draw_target(axes: Axes, target_epsilon: float, colour: str) -> None:
    axes.axhline(target_epsilon, color=colour, linestyle="--", linewidth=1.2)
    axes.annotate(
        f"target of the whole run: {target_epsilon:g}",
        (0.02, target_epsilon),
        xycoords=("axes fraction", "data"),
        xytext=(0, 4),
        textcoords="offset points",
        color=colour,
    )


def _draw_clip(axes: Axes, metrics: Sequence[dict[str, Any]]) -> None:
    """Draw the adaptive clip, which is all that a run without metrics tells of its updates."""
    points = _get_points(metrics, "update_norm")
    _plot(axes, points, color=GREEN)
    axes.set_ylim(0, 1.15 * max(norm for _, norm in points))
    _set_rounds(axes, title="Clip by round (metrics are suppressed)", ylabel="L2 clip of an update")
    label_ends(axes, [(points[-1], f"{points[-1][1]:.3g}", GREEN)])


def _draw_utility_by_epsilon(
    axes: Axes, metrics: Sequence[dict[str, Any]], guarantee: Guarantee
) -> None:
    unit = f" of {guarantee.name}" if guarantee.name else ""
    axes.set_title("Utility against epsilon")
    axes.set_xlabel(f"epsilon{unit} spent so far")
    axes.set_ylabel(_describe_utility(metrics))
    ends: list[End] = []
    for key, label, colour, dashes in UTILITY_SERIES:
        points = _get_pairs(metrics, guarantee.key, key)
        if points:
            _plot(axes, points, color=colour, linestyle=dashes)
            ends.append((points[-1], label, colour))
    axes.set_xlim(0, 1.05 * max(x for (x, _), _, _ in ends) or 1)
    _limit_share(axes)
    label_ends(axes, ends)


def _draw_losses(axes: Axes, runs: Sequence[Run]) -> None:
    key = next((key for run in runs for key in LOSSES if run.get_series(key)), LOSSES[0])
    for index, run in enumerate(runs):
        _plot(axes, run.get_series(key), **_get_style(index))
    label = label_metric(key)
    _set_rounds(axes, title=f"{_capitalise(label)} by round", ylabel=label)


def _draw_paths(axes: Axes, runs: Sequence[Run], key: str) -> None:
    """Draw utility against epsilon; a run without privacy is a line at the utility it reached."""
    ends: list[End] = []
    highest = max(epsilon for run in runs for _, epsilon in run.get_series("epsilon"))
    for index, run in enumerate(runs):
        points, last = _get_pairs(run.metrics, "epsilon", key), run.get_last(key)
        style = _get_style(index)
        if points:
            _plot(axes, points, **style)
        elif last is not None:
            axes.axhline(last, linewidth=1.2, color=style["color"], linestyle=(0, (1, 2)))
            ends.append(((1.05 * highest, last), "no privacy", style["color"]))
    axes.set_xlim(0, 1.05 * highest or 1)
    label_ends(axes, ends)


def _write_no_privacy(figure: Figure, *, claimed: bool) -> None:
    """Say in words why there is no curve: no privacy was asked for, or no finite epsilon came."""
    title = "No finite epsilon" if claimed else "No differential privacy"
    text = (
        "The noise is too small for any guarantee: the accountant gave no finite epsilon."
        if claimed
        else "Every site's update was released as it is: no epsilon bounds what it shows.\n"
        'privacy.unit = "record" with a target_epsilon trains with a guarantee.'
    )
    axes = figure.subplots()
    axes.set_axis_off()
    axes.text(0.5, 0.72, title, ha="center", va="center", fontsize=17, weight="bold", color=BLACK)
    axes.text(0.5, 0.36, text, ha="center", va="center", fontsize=11, linespacing=1.6)


def _plot(axes: Axes, points: Sequence[tuple[float, float]], **style: Any) -> None:
    marker = "o" if len(points) <= MARKER_LIMIT else ""
    axes.plot([x for x, _ in points], [y for _, y in points], marker=marker, **style)


def _get_style(index: int) -> dict[str, Any]:
    cycle, colour = divmod(index, len(PALETTE))
    return {"color": PALETTE[colour], "linestyle": DASHES[cycle % len(DASHES)]}


def _set_rounds(axes: Axes, *, title: str, ylabel: str) -> None:
    axes.set(title=title, xlabel="round", ylabel=ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    low, high = axes.dataLim.intervalx
    if high > low:
        axes.set_xlim(max(0.5, low - 0.03 * (high - low)), high + 0.03 * (high - low))


def _limit_share(axes: Axes) -> None:
    """Keep an axis of shares within 0 and 1, with a little air."""
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -0.02), min(high, 1.02))


def _mark_best(axes: Axes, best_round: int | None) -> None:
    if best_round is None:
        return
    axes.axvline(best_round, color="#888888", linestyle=":", linewidth=1.2, zorder=0)
    axes.annotate(
        "kept",
        (best_round, 0.02),
        xycoords=("data", "axes fraction"),
        xytext=(-3, 0),
        textcoords="offset points",
        ha="right",
        color="#666666",
        fontsize=8,
    )


def _write_empty(axes: Axes, text: str) -> None:
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color="#666666")


def _capitalise(text: str) -> str:
    return text[:1].upper() + text[1:]


def _get_points(metrics: Sequence[dict[str, Any]], key: str) -> Points:
    return _get_pairs(metrics, "round", key)


def _get_pairs(metrics: Sequence[dict[str, Any]], first: str, second: str) -> Points:
    pairs = [(to_finite(line.get(first)), to_finite(line.get(second))) for line in metrics]
    return [(x, y) for x, y in pairs if x is not None and y is not None]


def _describe_utility(metrics: Sequence[dict[str, Any]]) -> str:
    text = "accuracy (share correct)"
    return f"{text}, AUC" if _get_points(metrics, "test_auc") else text


def _list_spent(config: Mapping[str, Any]) -> list[Guarantee]:
    """Return the epsilons that a config's metrics have; without a config one of unknown unit."""
    return list_guarantees(config) or [Guarantee("", "", "")]


def _get_targets(config: Mapping[str, Any]) -> dict[str, float]:
    """Return what the whole run may cost, by the prefix of the epsilon that it is for."""
    privacy = config.get("privacy", {})
    tables = {"record": privacy, "person": privacy, "site": privacy.get("site", {})}
    targets = {}
    for one in list_guarantees(config):
        target = to_finite(tables.get(one.unit, {}).get("target_epsilon"))
        if target is not None and one.prefix != "coordinator_":
            targets[one.prefix] = target
    return targets


def _describe_deltas(metrics: Sequence[dict[str, Any]], guarantees: Sequence[Guarantee]) -> str:
    """Return the delta, or, where a site's is another than a record's, both."""
    own = [one for one in guarantees if one.prefix != "coordinator_"]  # whose delta is the site's
    found = {one.unit: metrics[-1].get(one.delta_key) for one in own}
    deltas = {unit: f"{delta:g}" for unit, delta in found.items() if delta is not None}
    if len(set(deltas.values())) > 1:
        return f" (delta: {', '.join(f'{unit} {text}' for unit, text in deltas.items())})"
    return f" (at delta = {next(iter(deltas.values()))})" if deltas else ""


def _describe_units(runs: Sequence[Run]) -> str:
    """Return the label of an axis of epsilons, of one unit or, said so, of several."""
    names = dict.fromkeys(one.name for run in runs for one in list_guarantees(run.config)[:1])
    if len(names) == 1:
        return f"epsilon of {next(iter(names))} (at the delta of the run)"
    return f"epsilon (not comparable: of {', of '.join(names)})"


def _explain_empty(config: Mapping[str, Any]) -> str:
    """Say why there are no metrics."""
    if config.get("privacy", {}).get("metrics") == "suppressed":
        return "metrics are suppressed:\nno site sent a loss or an accuracy"
    return "not evaluated"


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="png", metadata={"Software": None}, facecolor="white")

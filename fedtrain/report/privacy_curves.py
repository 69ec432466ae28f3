"""Pictures of `fedtrain privacy`: epsilon against steps and noise, noise against sites.

Every point is computed by the accountant that answers the command; nothing is interpolated. Same
question, same bytes.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from fedtrain.errors import ConfigError
from fedtrain.privacy.accounting import Accountant, PrivacyCost, compute_cost
from fedtrain.privacy.calibration import calibrate_noise_multiplier
from fedtrain.privacy.cross_check import Answer
from fedtrain.privacy.renyi import NeighbouringRelation
from fedtrain.report.curves import BLACK, BLUE, GREEN, ORANGE, STYLE, Points
from fedtrain.report.labels import End, label_ends
from fedtrain.report.privacy_answers import Question, name_steps
from fedtrain.report.tables import format_count, format_epsilon

SIZE: Final = (8.6, 4.6)
NOISE_FACTORS: Final = (0.8, 1.25, 1.6, 2.0)  # other noises, beside the one asked about
COLOURS: Final[dict[NeighbouringRelation, str]] = {"add_remove": BLUE, "replace_one": GREEN}
DASHES: Final[dict[Accountant, str]] = {"pld": "-", "rdp": "--"}
EPSILONS: Final = (1.0, 2.0, 4.0, 8.0)
PARAMETERS: Final = (1_000, 100_000)
_GRID_SHARE: Final = 2e-4  # of the axis' height: the width of the accountant's grid
_POINTS: Final = 31
_POINTS_OF_MANY: Final = 13  # where one evaluation takes half a second
_MANY_STEPS: Final = 100_000
_GREY: Final = "#666666"


def build_steps_figure(
    question: Question, cost: PrivacyCost, *, target_epsilon: float | None = None
) -> Figure:
    """Draw epsilon against steps, for the noise asked about and some others.

    Args:
        question: What was asked.
        cost: What it costs.
        target_epsilon: Drawn as a line if given.

    Returns:
        The figure, to be saved by `save_figure`.

    Raises:
        ConfigError: No epsilon is finite, so that there is nothing to draw.
    """
    _check_drawable(question, cost.epsilon)
    counts = _choose_steps(question.steps)
    top = 1.9 * max(cost.epsilon, target_epsilon or 0.0)
    factors = NOISE_FACTORS if question.steps <= _MANY_STEPS else NOISE_FACTORS[::2]
    noises = {_round(question.noise_multiplier * factor) for factor in factors}
    chosen = sorted({*noises, question.noise_multiplier})
    figure, axes = _start(f"Epsilon grows with every step (sample rate {question.sample_rate:g})")
    ends: list[End] = []
    for index, noise in enumerate(chosen):
        other = replace(question, noise_multiplier=noise)
        points = [_cost_steps(other, n, top=top, accountant=cost.accountant) for n in counts]
        points = _cut(points, top)
        asked = noise == question.noise_multiplier
        colour = BLUE if asked else _shade(index, len(chosen))
        _plot(axes, points, colour, thick=asked)
        ends.append((points[-1], f"noise {noise:.4g}", colour))
    axes.set(xlabel=_name_steps(question), ylabel=_name_epsilon(question))
    axes.set_xlim(0, counts[-1])
    axes.set_ylim(0, top or None)
    _draw_target(axes, target_epsilon)
    _mark(
        axes,
        question.steps,
        cost.epsilon,
        f"{name_steps(question)}: {format_epsilon(cost.epsilon)}",
        rising=True,
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    label_ends(axes, ends)
    return figure


def build_noise_figure(question: Question, cost: PrivacyCost, *, target_epsilon: float) -> Figure:
    """Draw epsilon against noise, in both relations.

    Args:
        question: What was asked, with the noise found.
        cost: What it costs.
        target_epsilon: What was asked for.

    Returns:
        The figure.

    Raises:
        ConfigError: No epsilon is finite.
    """
    _check_drawable(question, cost.epsilon)
    noises = question.noise_multiplier * np.geomspace(0.4, 2.8, _count_points(question.steps))
    figure, axes = _start(
        f"Less noise, more epsilon ({question.steps:,} steps, sample rate {question.sample_rate:g})"
    )
    ends: list[End] = []
    drawn: Points = []
    top = 4 * target_epsilon
    for relation, colour in COLOURS.items():
        asked = replace(question, neighbouring_relation=relation)
        points = [
            (noise, replace(asked, noise_multiplier=noise).compute_cost().epsilon)
            for noise in noises.tolist()
        ]
        points = [point for point in points if point[1] <= 1.5 * top]
        drawn += points
        _plot(axes, points, colour, thick=relation == question.neighbouring_relation)
        ends.append((points[-1], relation, colour))
    axes.set(xlabel="noise multiplier (standard deviation / clip)")
    axes.set_ylabel(_name_epsilon(question, relation=False))
    axes.set_xlim(float(noises[0]), float(noises[-1]))
    axes.set_ylim(0, min(top, 1.05 * max(epsilon for (_, epsilon) in drawn)))
    _draw_target(axes, target_epsilon, place=0.99)
    text, colour = f"noise {question.noise_multiplier:.4g}", COLOURS[question.neighbouring_relation]
    at = (question.noise_multiplier, cost.epsilon)
    _mark(axes, *at, text, colour=colour)
    label_ends(axes, ends)
    return figure


def build_sites_figure(question: Question, cost: PrivacyCost, *, target_epsilon: float) -> Figure:
    """Draw how large the noise on the mean of the sites is, against their number.

    Args:
        question: What was asked, with the noise found and the sites.
        cost: What it costs.
        target_epsilon: What was asked for; drawn beside some others.

    Returns:
        The figure.

    Raises:
        ConfigError: No epsilon is finite, or there is no number of sites.
    """
    _check_drawable(question, cost.epsilon)
    noise = question.compute_noise_on_mean()
    if noise is None or question.sites is None:
        raise ConfigError(f"--sites {question.sites} of a round is none; give at least 1")
    counts = np.geomspace(2, max(10_000, 3 * question.sites), 40)
    figure, axes = _start(f"At few sites the noise swamps the model ({question.steps:,} rounds)")
    ends: list[End] = []
    others = [epsilon for epsilon in EPSILONS if epsilon != target_epsilon]
    for index, epsilon in enumerate(sorted([*others, target_epsilon])):
        asked = epsilon == target_epsilon
        multiplier = question.noise_multiplier if asked else _calibrate(question, epsilon)
        points = [(n, multiplier / (question.sample_rate * n)) for n in counts.tolist()]
        colour = BLUE if asked else _shade(index, len(others) + 1)
        _plot(axes, points, colour, thick=asked)
        ends.append((points[-1], f"epsilon {epsilon:g}", colour))
    axes.set(xscale="log", yscale="log", xlabel="sites whose updates are summed")
    axes.set_ylabel("noise on the mean, per coordinate / clip")
    axes.set_xlim(float(counts[0]), float(counts[-1]))
    for scale in (axes.xaxis, axes.yaxis):
        scale.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        scale.set_minor_formatter(NullFormatter())
    for parameters in PARAMETERS:
        _draw_swamp(axes, parameters)
    _mark(axes, question.sites, noise, "")
    text = f"{format_count(question.sites, 'site')}: {noise:.2g} of the clip, on every coordinate"
    style: dict[str, Any] = {"ha": "right", "va": "top", "color": BLUE, "weight": "bold"}
    axes.text(0.98, 0.96, text, transform=axes.transAxes, **style)
    label_ends(axes, ends)
    return figure


def build_comparison_figure(question: Question, answers: Sequence[Answer]) -> Figure:
    """Draw epsilon against steps by accountant and relation, with Opacus' answers as points.

    Args:
        question: What was asked.
        answers: Those of `cross_check`, for both relations.

    Returns:
        The figure.

    Raises:
        ConfigError: No epsilon is finite.
    """
    top = max(answer.epsilon for answer in answers)
    _check_drawable(question, top)
    counts = _choose_steps(question.steps)
    figure, axes = _start(
        f"What accountants and relations say (noise {question.noise_multiplier:g}, sample rate"
        f" {question.sample_rate:g})"
    )
    ends: list[End] = []
    for relation, colour in COLOURS.items():
        for accountant, dashes in DASHES.items():
            asked = replace(question, neighbouring_relation=relation)
            points = [_cost_steps(asked, n, top=top, accountant=accountant) for n in counts if n]
            _plot(axes, points, colour, thick=accountant == "pld", linestyle=dashes)
            ends.append((points[-1], f"{accountant}, {relation}", colour))
    for method, (marker, name) in {"prv": ("o", "PRV"), "opacus_rdp": ("s", "RDP")}.items():
        found = [a.epsilon for a in answers if a.method == a.accountant == method]
        if found:
            label = f"Opacus {name}, add_remove"
            axes.plot(
                [question.steps],
                found,
                marker,
                label=label,
                zorder=4,
                markersize=6,
                markerfacecolor="white",
                markeredgecolor=BLACK,
            )
            axes.legend(loc="upper left", frameon=False)
    axes.set(xlabel=_name_steps(question), ylabel=_name_epsilon(question, relation=False))
    axes.set_xlim(0, counts[-1])
    axes.set_ylim(0, None)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    label_ends(axes, ends)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, without date or version."""
    with matplotlib.style.context(["default", STYLE]):
        figure.savefig(path, format="png", metadata={"Software": None}, facecolor="white")


def _start(title: str) -> tuple[Figure, Axes]:
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        axes.set_title(title)
        return figure, axes


def _check_drawable(question: Question, epsilon: float) -> None:
    if epsilon == math.inf or question.noise_multiplier == 0:
        raise ConfigError(
            f"--picture: noise_multiplier = {question.noise_multiplier:g} has no finite epsilon to"
            " draw; raise it, or leave --picture out"
        )
    if not (question.steps and question.sample_rate and epsilon):
        raise ConfigError(
            f"--picture: {name_steps(question)} at sample_rate ="
            f" {question.sample_rate:g} cost nothing that could be drawn; leave --picture out"
        )


def _count_points(steps: int) -> int:
    return _POINTS if steps <= _MANY_STEPS else _POINTS_OF_MANY


def _choose_steps(steps: int) -> list[int]:
    """Choose numbers of steps from 0 to a quarter beyond, denser at the start."""
    count = _count_points(steps)
    last = max(steps + 1, round(1.25 * steps))
    chosen = {round(last * (index / (count - 1)) ** 2.5) for index in range(count)}
    return sorted({0, 1, steps, *chosen})


def _cost_steps(
    question: Question, steps: int, *, top: float, accountant: Accountant = "pld"
) -> tuple[float, float]:
    """Return a point; on a tall axis a coarser grid is as good, and faster."""
    cost = compute_cost(
        [replace(question, steps=steps).to_event()],
        delta=question.delta,
        neighbouring_relation=question.neighbouring_relation,
        accountant=accountant,
        discretisation=min(max(1e-3, top * _GRID_SHARE), 0.05),
    )
    return float(steps), cost.epsilon


def _cut(points: Points, top: float) -> Points:
    """Leave out points above the picture but for the first of them, put on its edge."""
    kept: Points = []
    for x, y in points:
        if y > top:
            before = kept[-1] if kept else (x, top)
            share = (top - before[1]) / (y - before[1]) if y < math.inf and y > before[1] else 0.0
            kept.append((before[0] + share * (x - before[0]), top))
            break
        kept.append((x, y))
    return kept


def _calibrate(question: Question, target_epsilon: float) -> float:
    return calibrate_noise_multiplier(
        target_epsilon=target_epsilon,
        target_delta=question.delta,
        sample_rate=question.sample_rate,
        steps=question.steps,
        neighbouring_relation=question.neighbouring_relation,
    )


def _round(noise: float) -> float:
    return float(f"{noise:.3g}")


def _shade(index: int, count: int) -> str:
    """Return a grey, lighter for later curves."""
    level = round(255 * (0.25 + 0.38 * index / max(1, count - 1)))
    return f"#{level:02x}{level:02x}{level:02x}"


def _plot(axes: Axes, points: Points, colour: str, *, thick: bool, linestyle: str = "-") -> None:
    axes.plot(
        [x for x, _ in points],
        [y for _, y in points],
        color=colour,
        linewidth=2.4 if thick else 1.5,
        linestyle=linestyle,
        zorder=3 if thick else 2,
    )


def _draw_target(axes: Axes, target_epsilon: float | None, *, place: float = 0.01) -> None:
    if target_epsilon is None:
        return
    axes.axhline(target_epsilon, color=ORANGE, linestyle="--", linewidth=1.2)
    axes.annotate(
        f"target {target_epsilon:g}",
        (place, target_epsilon),
        xycoords=("axes fraction", "data"),
        xytext=(0, 4),
        textcoords="offset points",
        ha="right" if place > 0.5 else "left",
        color=ORANGE,
    )


def _draw_swamp(axes: Axes, parameters: int) -> None:
    """Draw where noise on so many parameters is as long as the longest update."""
    height = 1 / math.sqrt(parameters)
    axes.axhline(height, color=_GREY, linestyle=":", linewidth=1.2)
    axes.annotate(
        f"above: noise longer than any update of {parameters:,} parameters",
        (0.01, height),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        color=_GREY,
        fontsize=8,
    )


def _mark(
    axes: Axes, x: float, y: float, text: str, *, colour: str = BLUE, rising: bool = False
) -> None:
    """Mark the answer, its words below a rising curve, right of a falling one."""
    axes.plot([x], [y], "o", color=colour, markersize=7, zorder=5)
    axes.annotate(
        text,
        (x, y),
        xytext=(0, -17) if rising else (8, 7),
        textcoords="offset points",
        ha="center" if rising else "left",
        color=colour,
        weight="bold",
        zorder=6,
        path_effects=[withStroke(linewidth=3, foreground="white")],
    )


def _name_steps(question: Question) -> str:
    return "rounds" if question.unit == "site" else "steps (rounds x local steps)"


def _name_epsilon(question: Question, *, relation: bool = True) -> str:
    which = f", {question.neighbouring_relation}" if relation else ""
    return f"epsilon at delta = {question.delta:g}{which}"

"""The picture of a study: the metric by trial, and against each hyper-parameter."""

import math
from pathlib import Path
from typing import Any, Final

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from fedtrain.report.curves import BLACK, BLUE, ORANGE, STYLE
from fedtrain.report.privacy_curves import save_figure

from .sweep import SweepResult, TrialResult
from .sweep_study import Span

_COLUMNS: Final = 3


def draw_sweep(result: SweepResult, path: Path) -> None:
    """Write the picture."""
    told = [trial for trial in result.trials if trial.value is not None]
    names = list(result.study.space)
    rows = math.ceil((len(names) + 1) / _COLUMNS)
    columns = min(_COLUMNS, len(names) + 1)
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(3.4 * columns, 2.8 * rows), layout="constrained")
        places = figure.subplots(rows, columns, squeeze=False).reshape(-1)
        _draw_history(places[0], told, maximises=result.study.maximises)
        for axes, name in zip(places[1:], names, strict=False):
            _draw_values(axes, told, name, result)
        for axes in places[len(names) + 1 :]:
            axes.set_axis_off()
        for axes in places[0 : len(names) + 1 : columns]:
            axes.set_ylabel(result.study.metric)
    save_figure(figure, path)


def _draw_history(axes: Axes, told: list[TrialResult], *, maximises: bool) -> None:
    complete = [trial for trial in told if trial.state == "complete"]
    pruned = [trial for trial in told if trial.state == "pruned"]
    values = _list_values(complete)
    best = np.maximum.accumulate(values) if maximises else np.minimum.accumulate(values)
    axes.plot([t.number for t in complete], values, "o", color=BLUE, label="complete")
    axes.plot([t.number for t in pruned], _list_values(pruned), "x", color=ORANGE)
    axes.step([t.number for t in complete], best, where="post", color=BLACK, linewidth=1.2)
    axes.set_title("By trial (x pruned)")
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_values(axes: Axes, told: list[TrialResult], name: str, result: SweepResult) -> None:
    points = [trial for trial in told if name in trial.values]
    space: Any = result.study.space[name]
    if isinstance(space, Span):
        places = [trial.values[name] for trial in points]
        if space.log:
            _scale(axes, space)
    else:
        axes.set_xticks(range(len(space)), [str(choice) for choice in space])
        places = [space.index(trial.values[name]) for trial in points]
    colours = [ORANGE if trial.state == "pruned" else BLUE for trial in points]
    axes.scatter(places, _list_values(points), c=colours, s=16)
    if result.best is not None:
        best = result.best.values[name]
        place = best if isinstance(space, Span) else space.index(best)
        axes.scatter(
            [place], _list_values([result.best]), s=90, facecolors="none", edgecolors=BLACK
        )
    axes.set_title(name.rpartition(".")[2])


def _scale(axes: Axes, space: Span) -> None:
    """Show all that is searched, with few ticks in plain numbers."""
    axes.set_xscale("log")
    axes.set_xlim(space.low / 1.1, space.high * 1.1)
    axes.xaxis.set_major_locator(
        LogLocator(subs=(1, 2, 5) if space.high < 300 * space.low else (1,))
    )
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _list_values(trials: list[TrialResult]) -> list[float]:
    return [trial.value for trial in trials if trial.value is not None]

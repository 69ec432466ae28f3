"""Pictures of federated statistics: histograms, missing shares, correlation."""

import math
from pathlib import Path
from typing import Final

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedtrain.report.curves import BLUE, ORANGE, STYLE
from fedtrain.report.privacy_curves import save_figure
from fedtrain.statistics.figures import ChoiceFigures, Figures, NumericFigures

_COLUMNS: Final = 4
_MOST: Final = 24  # panels of one picture


def draw_statistics(figures: Figures, folder: Path) -> list[Path]:
    """Write the pictures that the figures allow; return their files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, draw in (
        ("histograms.png", _draw_histograms),
        ("missing.png", _draw_missing),
        ("correlation.png", _draw_correlation),
    ):
        with matplotlib.style.context(["default", STYLE]):
            figure = draw(figures)
        if figure is not None:
            save_figure(figure, folder / name)
            written.append(folder / name)
    return written


def _draw_histograms(figures: Figures) -> Figure | None:
    panels: list[NumericFigures | ChoiceFigures] = [
        column for column in figures.numeric if column.histogram is not None
    ]
    panels += [choice for choice in figures.choices if choice.counts]
    panels += [figures.labels] if figures.labels and figures.labels.counts else []
    panels = panels[:_MOST]
    if not panels:
        return None
    rows = math.ceil(len(panels) / _COLUMNS)
    columns = min(_COLUMNS, len(panels))
    figure = Figure(figsize=(2.9 * columns, 2.3 * rows), layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    for axes, panel in zip(places, panels, strict=False):
        _draw_panel(axes, panel)
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    return figure


def _draw_panel(axes: Axes, panel: NumericFigures | ChoiceFigures) -> None:
    axes.set_title(panel.name)
    if isinstance(panel, ChoiceFigures):
        axes.bar(list(panel.counts), list(panel.counts.values()), color=ORANGE)
        axes.tick_params(axis="x", labelrotation=30 if len(panel.counts) > 4 else 0)
        axes.set_ylabel("records")
        return
    if panel.histogram is None:
        return
    edges, counts = np.array(panel.histogram.edges), np.array(panel.histogram.counts)
    axes.stairs(counts / np.diff(edges), edges, fill=True, color=BLUE)
    axes.set_ylabel("records a unit")
    if panel.mean is not None:
        axes.axvline(panel.mean, color=ORANGE, linewidth=1.4)


def _draw_missing(figures: Figures) -> Figure | None:
    panels: list[NumericFigures | ChoiceFigures] = [*figures.numeric, *figures.choices]
    shares = {
        panel.name: 100 * panel.missing_share for panel in panels if panel.missing_share is not None
    }
    if not any(shares.values()):
        return None
    figure = Figure(figsize=(7.0, 0.8 + 0.26 * len(shares)), layout="constrained")
    axes = figure.subplots()
    axes.barh(list(shares), list(shares.values()), color=BLUE)
    axes.invert_yaxis()
    axes.set_title("Missing values over all sites")
    axes.set(xlabel="% of records", xlim=(0, 100))
    return figure


def _draw_correlation(figures: Figures) -> Figure | None:
    if figures.correlation is None:
        return None
    names = [column.name for column in figures.numeric]
    values = np.array(
        [[np.nan if v is None else v for v in line] for line in figures.correlation], float
    )
    side = 2.4 + 0.34 * len(names)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_title("Correlation over all sites")
    axes.grid(visible=False)
    if len(names) <= 12:
        for i, j in np.argwhere(~np.isnan(values)).tolist():
            colour = "white" if abs(values[i, j]) > 0.6 else "black"
            text = f"{values[i, j]:.2f}"
            axes.text(j, i, text, ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(image, ax=axes, shrink=0.8)
    return figure

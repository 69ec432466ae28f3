"""The picture of canary sites: cosines of sites that were there, and of directions nobody sent."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fedtrain.report.curves import BLUE, ORANGE, STYLE
from fedtrain.report.privacy_curves import save_figure

Floats = NDArray[np.float64]

PANEL: Final = (4.9, 3.4)


@dataclass(frozen=True)
class Panel:
    """One set of axes.

    Attributes:
        title: What was run.
        present: Cosines of canaries.
        absent: Cosines of directions that nobody sent.
        note: What it comes to.
    """

    title: str
    present: Floats
    absent: Floats
    note: str


def draw_cosines(panels: Sequence[Panel], path: Path) -> None:
    """Write the picture: histograms with fitted Gaussians, on equal axes."""
    everything = np.concatenate([part for p in panels for part in (p.present, p.absent)])
    low, high = float(everything.min()), float(everything.max())
    room = 0.12 * max(high - low, 1e-9)
    edges = np.linspace(low - room, high + room, 41)
    with matplotlib.style.context(["default", STYLE]):
        width, height = PANEL
        figure = Figure(figsize=(max(6.0, width * len(panels)), height), layout="constrained")
        cells = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
        for axes, panel in zip(cells, panels, strict=True):
            _draw(axes, panel, edges)
        cells[0].set_ylabel("density")
        handles = cells[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=2)
    save_figure(figure, path)


def _draw(axes: Axes, panel: Panel, edges: Floats) -> None:
    kinds = (
        (panel.absent, BLUE, "///", "directions that nobody sent"),
        (panel.present, ORANGE, "", "canary sites that took part"),
    )
    grid = np.linspace(edges[0], edges[-1], 400)
    for cosines, colour, hatch, label in kinds:
        axes.hist(
            cosines,
            bins=list(edges),
            density=True,
            facecolor=colour,
            alpha=0.4,
            hatch=hatch,
            edgecolor="white",
            label=label,
        )
        mean, stddev = float(cosines.mean()), max(float(cosines.std()), 1e-9)
        bell = np.exp(-(((grid - mean) / stddev) ** 2) / 2) / (stddev * np.sqrt(2 * np.pi))
        axes.plot(grid, bell, color=colour)
    axes.set_title(f"{panel.title}: {panel.note}")
    axes.set_xlabel("cosine with the change of the model")

"""The picture of gradient inversion: originals above what was rebuilt from each view of a step."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fedtrain.report.curves import BLACK, ORANGE, STYLE
from fedtrain.report.privacy_curves import save_figure

CELL: Final = 1.1  # inches
MARGIN: Final = 2.0
_GREY: Final = "#666666"


@dataclass(frozen=True)
class Row:
    """One line of images.

    Attributes:
        title: What was seen.
        note: What that means, in a few words.
        images: `(h, w)` or `(channels, h, w)` each.
        captions: Below each image; empty for none.
        recovered: Whether each counts as rebuilt; None where that is no question.
    """

    title: str
    note: str
    images: Sequence[NDArray[np.float64]]
    captions: Sequence[str]
    recovered: Sequence[bool] | None = None


def draw_inversions(
    rows: Sequence[Row], path: Path, *, title: str, low: float, high: float
) -> None:
    """Write the picture.

    Args:
        rows: From above, each of as many images.
        path: The PNG file.
        title: Of the whole; what follows a line break stands below the images.
        low: Value of black.
        high: Value of white.
    """
    columns = max(len(row.images) for row in rows)
    size = (MARGIN + CELL * columns, 0.6 + (CELL + 0.2) * len(rows))
    with matplotlib.style.context(["default", STYLE, {"axes.grid": False}]):
        figure = Figure(figsize=size, layout="constrained")
        heading, _, note = title.partition("\n")
        figure.suptitle(heading, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
        figure.supxlabel(note, x=0.01, ha="left", fontsize=8.5, color=_GREY)
        widths = [MARGIN / CELL, *[1.0] * columns]
        cells = figure.subplots(
            len(rows), columns + 1, squeeze=False, gridspec_kw={"width_ratios": widths}
        )
        for line, row in zip(cells, rows, strict=True):
            _write_title(line[0], row)
            for axes in line[1:]:
                axes.set_axis_off()
            for index, (axes, image) in enumerate(zip(line[1:], row.images, strict=False)):
                _show(axes, row, index, image=image, limits=(low, high))
    save_figure(figure, path)


def _write_title(axes: Any, row: Row) -> None:
    axes.set_axis_off()
    style = {"transform": axes.transAxes, "ha": "left"}
    axes.text(0.0, 0.58, row.title, va="bottom", color=BLACK, weight="bold", fontsize=9.5, **style)
    axes.text(0.0, 0.5, row.note, va="top", color=_GREY, fontsize=8.5, **style)


def _show(
    axes: Any, row: Row, index: int, *, image: NDArray[np.float64], limits: tuple[float, float]
) -> None:
    axes.set_axis_on()
    axes.set(xticks=[], yticks=[])
    flat = image[0] if image.ndim == 3 and len(image) == 1 else image
    shown = np.moveaxis(flat, 0, -1) if flat.ndim == 3 else flat
    if shown.ndim == 3:
        shown = (shown - limits[0]) / (limits[1] - limits[0])
    axes.imshow(np.clip(shown, *limits), cmap="gray", vmin=limits[0], vmax=limits[1])
    colour, width = "#bbbbbb", 0.8
    if row.recovered is not None and row.recovered[index]:
        colour, width = ORANGE, 2.4
    for spine in axes.spines.values():
        spine.set(visible=True, color=colour, linewidth=width)
    if row.captions:
        axes.set_xlabel(row.captions[index], fontsize=8, color=BLACK, labelpad=2)

"""Bars of what an attack gets: each with its value, open ones for what nothing protects."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import matplotlib.style
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from fedtrain.report.curves import BLUE, ORANGE, STYLE
from fedtrain.report.privacy_curves import save_figure

BAR_HEIGHT: Final = 0.34  # inches
WIDTH: Final = 7.2


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        name: What was seen.
        value: 0 to 1.
        open: Whether nothing protected it.
    """

    name: str
    value: float
    open: bool


def draw_bars(
    bars: Sequence[Bar], path: Path, *, title: str, label: str = "share of records read"
) -> None:
    """Write the picture.

    Args:
        bars: From above.
        path: The PNG file.
        title: Of the picture.
        label: Of the axis.
    """
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(WIDTH, 1.5 + BAR_HEIGHT * len(bars)), layout="constrained")
        axes = figure.subplots()
        axes.set_title(title)
        places = list(range(len(bars)))[::-1]
        for place, bar in zip(places, bars, strict=True):
            colour, hatch = (ORANGE, "") if bar.open else (BLUE, "///")
            axes.barh(
                place, bar.value, height=0.62, facecolor=colour, hatch=hatch, edgecolor="white"
            )
            axes.text(bar.value + 0.01, place, f"{bar.value:.0%}", va="center", fontsize=9)
        axes.set_yticks(places, [bar.name for bar in bars])
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.set(xlim=(0, 1.08), xlabel=label)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
        kinds = [
            Patch(facecolor=ORANGE, label="unprotected"),
            Patch(facecolor=BLUE, hatch="///", edgecolor="white", label="protected"),
        ]
        figure.legend(handles=kinds, loc="outside lower center", ncols=2)
    save_figure(figure, path)

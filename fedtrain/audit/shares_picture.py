"""The picture of label leakage: each site's true label shares beside what each view tells."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fedtrain.report.curves import STYLE
from fedtrain.report.privacy_curves import save_figure

Floats = NDArray[np.float64]

NAMES: Final = {
    "raw": "raw gradient",
    "dp": "clipped and noised",
    "masked": "one masked vector",
    "sum": "secure sum",
}
_SITES: Final = 10
_CLASSES: Final = 20


@dataclass(frozen=True)
class Estimate:
    """A site's label shares, and what was told of them.

    Attributes:
        truth: `(c,)`.
        found: `(c,)` by view.
    """

    truth: Floats
    found: Mapping[str, Floats]


def draw_shares(estimates: Sequence[Estimate], path: Path, *, classes: int) -> None:
    """Write the picture: one panel a view, sites down, labels across, one grey scale.

    Args:
        estimates: Of each site.
        path: The PNG file.
        classes: Number of labels.
    """
    shown = estimates[:_SITES]
    panels = [("true shares", np.stack([one.truth for one in shown]))]
    panels += [(text, np.stack([one.found[name] for one in shown])) for name, text in NAMES.items()]
    top = math.ceil(10 * max(one.truth.max() for one in shown)) / 10
    width = 0.9 + len(panels) * max(1.5, 0.17 * min(classes, _CLASSES))
    with matplotlib.style.context(["default", STYLE, {"axes.grid": False}]):
        figure = Figure(figsize=(width, 1.5 + 0.26 * len(shown)), layout="constrained")
        figure.suptitle(
            "Label shares of each site, and what a step tells of them",
            x=0.01,
            ha="left",
            fontsize=10.5,
            fontweight="bold",
        )
        cells = figure.subplots(1, len(panels), sharey=True)
        for axes, (title, shares) in zip(cells, panels, strict=True):
            image = axes.imshow(shares[:, :_CLASSES], cmap="Greys", vmin=0, vmax=top, aspect="auto")
            axes.set_title(title, fontsize=9, fontweight="normal")
            axes.set_xticks(range(0, min(classes, _CLASSES), 1 if classes <= 4 else 3))
            axes.set_yticks(range(len(shown)), [str(index + 1) for index in range(len(shown))])
            axes.set_xlabel("label")
            axes.spines[["top", "right"]].set_visible(True)
        cells[0].set_ylabel("site")
        bar = figure.colorbar(
            image, ax=cells, pad=0.01, aspect=14, extend="max" if top < 1 else None
        )
        bar.set_label("share of its records")
    save_figure(figure, path)

"""The picture of membership inference: members found against non-members accused, on log axes.

A log axis shows the corner that matters: a few records named with near certainty. Guessing is the
diagonal.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from fedtrain.audit.roc import Rates
from fedtrain.report.curves import BLACK, PALETTE, STYLE
from fedtrain.report.privacy_curves import save_figure

PANEL: Final = (4.9, 4.6)
DASHES: Final = ("-", "--", "-.", ":")
_LOWEST: Final = 1e-4
_GREY: Final = "#777777"


@dataclass(frozen=True)
class Panel:
    """One set of axes.

    Attributes:
        title: What was attacked.
        attacks: Rates by the attack's name.
        bound: Largest share of members that the guarantee lets any attack find, by the share of
            non-members accused; None where there is no guarantee.
        bound_name: What to call it.
    """

    title: str
    attacks: Mapping[str, Rates]
    bound: Callable[[float], float] | None = None
    bound_name: str = ""


def draw_rocs(panels: Sequence[Panel], path: Path) -> None:
    """Write the picture.

    Args:
        panels: Side by side, on equal axes.
        path: The PNG file.
    """
    with matplotlib.style.context(["default", STYLE]):
        width, height = PANEL
        figure = Figure(figsize=(max(6.0, width * len(panels)), height), layout="constrained")
        rows = figure.subplots(1, len(panels), sharey=True, squeeze=False)
        for axes, panel in zip(rows[0], panels, strict=True):
            _draw(axes, panel)
        rows[0][0].set_ylabel("members found (true positive rate)")
    save_figure(figure, path)


def _draw(axes: Axes, panel: Panel) -> None:
    axes.set_title(panel.title)
    grid = np.geomspace(_LOWEST, 1, 200)
    axes.plot(grid, grid, color=_GREY, linewidth=1.2, linestyle=":", label="guessing")
    for index, (name, rates) in enumerate(panel.attacks.items()):
        label = f"{name}: AUC {rates.auc.value:.3f} ({rates.auc.low:.3f} to {rates.auc.high:.3f})"
        axes.step(
            rates.curve.false_positive_rates,
            rates.curve.true_positive_rates,
            where="post",
            color=PALETTE[index],
            linestyle=DASHES[index % len(DASHES)],
            label=label,
        )
    if panel.bound is not None:
        limits = [panel.bound(rate) for rate in grid.tolist()]
        axes.plot(grid, limits, color=BLACK, linewidth=1.2, label=panel.bound_name)
    axes.set(xscale="log", yscale="log", xlim=(_LOWEST, 1), ylim=(_LOWEST, 1.35))
    axes.set_xlabel("non-members accused (false positive rate)")
    for scale in (axes.xaxis, axes.yaxis):
        scale.set_major_formatter(FuncFormatter(_format_share))
        scale.set_minor_formatter(NullFormatter())
    axes.legend(loc="lower right", fontsize=8, frameon=True, framealpha=0.9, edgecolor="none")


def _format_share(share: float, _: float | None) -> str:
    return f"{100 * share:g} %"

"""A picture of an explanation: bars for columns, a map for pixels."""

from pathlib import Path
from typing import Final

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedtrain.data.preparation import Preparation
from fedtrain.report.curves import BLUE, SIZE, STYLE
from fedtrain.use.explanation import Explanation

MOST_BARS: Final = 20
NAME_LENGTH: Final = 32
AXIS: Final = {
    "permutation": "rise of the loss when this input is shuffled",
    "gradients": "mean share of the predicted class's output",
}


def draw_explanation(explanation: Explanation, preparation: Preparation, path: Path) -> None:
    """Draw the importance of each input.

    Args:
        explanation: What to draw.
        preparation: Says whether inputs are pixels.
        path: The PNG file to write.
    """
    shape = preparation.input_shape
    with matplotlib.style.context(["default", STYLE]):
        is_map = preparation.columns is None and len(shape) in (2, 3)
        figure = Figure(figsize=(1.2 * SIZE[1], SIZE[1]) if is_map else SIZE, layout="constrained")
        axes = figure.subplots()
        if is_map:
            _draw_map(figure, axes, explanation, shape[-2:])
        else:
            _draw_bars(axes, explanation)
        figure.savefig(path, format="png", metadata={"Software": None}, facecolor="white")


def _draw_bars(axes: Axes, explanation: Explanation) -> None:
    ranked = explanation.rank()[:MOST_BARS]
    values = explanation.importance[ranked]
    spread = None if explanation.spread is None else explanation.spread[ranked]
    axes.barh(range(len(ranked)), values, xerr=spread, color=BLUE)
    axes.set_yticks(range(len(ranked)), [explanation.names[i][:NAME_LENGTH] for i in ranked])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_axisbelow(True)
    axes.set_xlabel(AXIS[explanation.method])
    left_out = len(explanation.names) - len(ranked)
    axes.set_title(f"The {len(ranked)} first of {len(explanation.names)}" if left_out else "")


def _draw_map(figure: Figure, axes: Axes, explanation: Explanation, shape: tuple[int, ...]) -> None:
    values = explanation.importance.reshape(shape)
    limit = float(np.abs(values).max()) or 1.0
    image = axes.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit)
    axes.grid(visible=False)
    axes.set_title(AXIS[explanation.method])
    figure.colorbar(image, ax=axes)

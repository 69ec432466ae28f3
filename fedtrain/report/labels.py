"""Names written at the ends of curves, kept apart."""

from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes

End = tuple[tuple[float, float], str, str]  # the curve's last point, its name, its colour

GAP: Final = 0.075  # least distance of two names, as a share of the axis' height


def label_ends(axes: Axes, ends: Sequence[End]) -> None:
    """Write each curve's name right of the axes, at its end's height or close to it.

    Args:
        axes: The axes, their limits final.
        ends: The curves' ends.
    """
    scale = axes.yaxis.get_transform()  # of a logarithmic axis too
    low, high = scale.transform(axes.get_ylim())
    wanted = [float((scale.transform(y) - low) / (high - low)) for (_, y), _, _ in ends]
    for (point, label, colour), height in zip(ends, spread(wanted, GAP), strict=True):
        axes.annotate(
            label,
            point,
            xytext=(1.03, height),
            textcoords="axes fraction",
            va="center",
            color=colour,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.6,
                "alpha": 0.6,
                "relpos": (0, 0.5),
            },
        )


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Move heights apart by as little as possible (least squares) so that they are `gap` apart.

    Args:
        heights: Wanted heights.
        gap: Least distance of two of them.

    Returns:
        Heights in the given order: rising where the wanted ones rise.

    References:
        Pool-adjacent-violators, on heights less their rank times the gap.
    """
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    pools: list[tuple[float, int]] = []  # mean and size
    for rank, index in enumerate(order):
        mean, size = heights[index] - rank * gap, 1
        while pools and pools[-1][0] > mean:
            other, count = pools.pop()
            mean, size = (mean * size + other * count) / (size + count), size + count
        pools.append((mean, size))
    placed = [mean for mean, size in pools for _ in range(size)]
    moved = [0.0] * len(heights)
    for rank, index in enumerate(order):
        moved[index] = placed[rank] + rank * gap
    return moved

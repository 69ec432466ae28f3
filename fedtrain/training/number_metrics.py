"""Metrics of predicted numbers from sums over sites: MAE, RMSE and R2, as over pooled records.

Errors and targets are in widths of the targets' public bounds, in which a target is in [0, 1].

Shapes: n records, k outputs.
"""

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Final, Self

import numpy as np
from torch import Tensor

from fedtrain.errors import PeerError

REALS: Final = 5


@dataclass(frozen=True)
class NumberSums:
    """Sums over records of means over outputs; add those of several sites.

    Attributes:
        loss_sum: Sum of the records' losses.
        absolute: Sum of absolute errors.
        squared: Sum of squared errors.
        total: Sum of targets.
        total_squares: Sum of squared targets.
        count: Number of records.
        width: What an error of 1 is, in the target's own unit.
    """

    loss_sum: float
    absolute: float
    squared: float
    total: float
    total_squares: float
    count: int
    width: float

    def __add__(self, other: "NumberSums") -> "NumberSums":
        """Return the sums over both sets of records."""
        return NumberSums(
            loss_sum=self.loss_sum + other.loss_sum,
            absolute=self.absolute + other.absolute,
            squared=self.squared + other.squared,
            total=self.total + other.total,
            total_squares=self.total_squares + other.total_squares,
            count=self.count + other.count,
            width=self.width,
        )

    def to_flat(self) -> list[float]:
        """Return the five sums, then the number of records."""
        return [float(value) for value in astuple(self)[: REALS + 1]]

    @classmethod
    def from_flat(cls, values: Sequence[float], *, width: float) -> Self:
        """Return the sums that `to_flat` wrote.

        Raises:
            PeerError: They are of another length, not finite, or the count is none.
        """
        finite = all(math.isfinite(value) for value in values)
        if len(values) != REALS + 1 or not finite or values[-1] < 0 or values[-1] % 1:
            raise PeerError(
                f"metric sums of {len(values)} numbers are none of a regression, which have"
                f" {REALS} finite sums and a count; all sites must run the same config"
            )
        loss_sum, absolute, squared, total, total_squares, count = map(float, values)
        return cls(loss_sum, absolute, squared, total, total_squares, int(count), width)

    def describe(self) -> dict[str, float]:
        """Return `loss` (mean), `mae` and `rmse` in the target's unit, and `r2` where defined.

        R2 is 1 - sum of squared errors / sum of squares about the mean over all sites and outputs;
        there is none where all targets are equal.
        """
        if not self.count:
            return {}
        metrics = {
            "loss": self.loss_sum / self.count,
            "mae": self.width * max(self.absolute, 0.0) / self.count,
            "rmse": self.width * math.sqrt(max(self.squared, 0.0) / self.count),
        }
        spread = self.total_squares - self.total**2 / self.count
        return metrics | ({"r2": 1 - self.squared / spread} if spread > 1e-9 * self.count else {})


def sum_numbers(outputs: Tensor, targets: Tensor, loss_sum: float, *, width: float) -> NumberSums:
    """Add up the records of one site: outputs and targets `(n, k)`."""
    predicted, wanted = (t.detach().to("cpu").double().numpy() for t in (outputs, targets))
    errors = predicted - wanted
    return NumberSums(
        loss_sum=loss_sum,
        absolute=float(np.abs(errors).mean(axis=1).sum()),
        squared=float(np.square(errors).mean(axis=1).sum()),
        total=float(wanted.mean(axis=1).sum()),
        total_squares=float(np.square(wanted).mean(axis=1).sum()),
        count=len(wanted),
        width=width,
    )

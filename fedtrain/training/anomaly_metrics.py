"""How well an autoencoder's error tells anomalies, from sums over sites.

The score of a record is the logarithm of its mean squared error. No threshold is chosen: AUC and
average precision are over all, and one metric is at a share of false alarms.

Shapes: n records, f features, B bins of `fedtrain.training.scores`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from torch import Tensor

from fedtrain.errors import PeerError
from fedtrain.training.counts import read_counts
from fedtrain.training.losses import Loss
from fedtrain.training.scores import (
    BINS,
    Counts,
    compute_auc,
    compute_average_precision,
    compute_recall_at,
    count_scores,
)

FALSE_ALARMS: Final = 0.05
_SMALLEST: Final = 1e-7  # an error below it counts as it: the score's lower end


@dataclass(frozen=True, eq=False)
class AnomalySums:
    """Sums over records; add those of several sites.

    Attributes:
        loss_sum: Sum of the losses of usual records.
        counts: Number of usual records and of anomalies, `(2,)`.
        histograms: `(1, 2, B)`, records by bin of the score; None where not wanted.
    """

    loss_sum: float
    counts: Counts
    histograms: Counts | None = None

    @property
    def count(self) -> int:
        """Number of records."""
        return int(self.counts.sum())

    def __add__(self, other: "AnomalySums") -> "AnomalySums":
        """Return the sums over both sets of records."""
        mine, theirs = self.histograms, other.histograms
        if (mine is None) != (theirs is None):
            raise PeerError("metric sums with and without scores; all sites must run one config")
        return AnomalySums(
            self.loss_sum + other.loss_sum,
            self.counts + other.counts,
            None if mine is None or theirs is None else mine + theirs,
        )

    def to_flat(self) -> list[float]:
        """Return the loss, the two counts and the histogram."""
        rest = [] if self.histograms is None else [float(n) for n in self.histograms.ravel()]
        return [self.loss_sum, *(float(n) for n in self.counts), *rest]

    @classmethod
    def from_flat(cls, values: Sequence[float]) -> Self:
        """Return the sums that `to_flat` wrote; PeerError where they are none."""
        loss, counts = read_counts(values, [count_anomaly_numbers(h) for h in (False, True)])
        histograms = counts[2:].reshape(1, 2, BINS) if len(counts) > 2 else None
        if histograms is not None and not np.array_equal(histograms[0].sum(axis=1), counts[:2]):
            raise PeerError("metric sums: histogram and counts are of different records")
        return cls(loss, counts[:2], histograms)

    def describe(self) -> dict[str, float]:
        """Return `loss` of usual records, `auc`, `average_precision` and `recall_at_5`.

        The last is the share of anomalies whose error is above that of 95 % of usual records.
        """
        found: dict[str, float | None] = {}
        if self.counts[0]:
            found["loss"] = self.loss_sum / float(self.counts[0])
        if self.histograms is not None:
            found["auc"] = compute_auc(self.histograms)
            found["average_precision"] = compute_average_precision(self.histograms)
            found["recall_at_5"] = compute_recall_at(self.histograms, FALSE_ALARMS)
        return {name: value for name, value in found.items() if value is not None}


def count_anomaly_numbers(histograms: bool) -> int:
    """Return the length of `AnomalySums.to_flat`."""
    return 3 + (2 * BINS if histograms else 0)


def sum_anomalies(
    outputs: Tensor, targets: Tensor, labels: Tensor, *, loss: Loss, histograms: bool
) -> AnomalySums:
    """Add up the records of one site: outputs and targets `(n, f)`, labels `(n,)` of 0 and 1."""
    rare = labels.detach().cpu().numpy() > 0
    usual = labels == 0
    losses = float(loss(outputs[usual], targets[usual], reduction="sum")) if usual.any() else 0.0
    errors = (outputs.detach() - targets).double().square().mean(1).cpu().numpy()
    scores = np.log(np.maximum(errors, _SMALLEST))[:, None]
    return AnomalySums(
        loss_sum=losses,
        counts=np.array([len(rare) - rare.sum(), rare.sum()], np.int64),
        histograms=count_scores(scores, rare[:, None]) if histograms else None,
    )

"""Metrics of several labels at once, from sums over sites.

Shapes: n records, L labels, B bins of `fedtrain.training.scores`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from torch import Tensor

from fedtrain.errors import PeerError
from fedtrain.training.counts import read_counts
from fedtrain.training.scores import (
    BINS,
    Counts,
    compute_auc,
    compute_average_precision,
    compute_calibration_error,
    count_scores,
)


@dataclass(frozen=True, eq=False)
class LabelSums:
    """Sums over records; add those of several sites.

    Attributes:
        loss_sum: Sum of the records' losses.
        exact: Number of records of which every label is right.
        confusion: `(L, 2, 2)`, number of records by label and prediction.
        histograms: `(L, 2, B)`, records by bin of the logit, without the label (0) and with it
            (1); None where not wanted.
    """

    loss_sum: float
    exact: int
    confusion: Counts
    histograms: Counts | None = None

    @property
    def count(self) -> int:
        """Number of records."""
        return int(self.confusion[0].sum())

    def __add__(self, other: "LabelSums") -> "LabelSums":
        """Return the sums over both sets of records."""
        mine, theirs = self.histograms, other.histograms
        if self.confusion.shape != other.confusion.shape or (mine is None) != (theirs is None):
            raise PeerError("metric sums of other labels; all sites must run the same config")
        return LabelSums(
            self.loss_sum + other.loss_sum,
            self.exact + other.exact,
            self.confusion + other.confusion,
            None if mine is None or theirs is None else mine + theirs,
        )

    def to_flat(self) -> list[float]:
        """Return the loss, the exact hits, the confusion and the histograms."""
        parts = [np.array([self.loss_sum, self.exact]), self.confusion.ravel()]
        if self.histograms is not None:
            parts.append(self.histograms.ravel())
        flat: list[float] = np.concatenate(parts).astype(np.float64).tolist()
        return flat

    @classmethod
    def from_flat(cls, values: Sequence[float], labels: int) -> Self:
        """Return the sums that `to_flat` wrote.

        Raises:
            PeerError: They are of another form, or do not add up.
        """
        loss, counts = read_counts(values, [count_label_numbers(labels, h) for h in (False, True)])
        confusion = counts[1 : 1 + 4 * labels].reshape(labels, 2, 2)
        records = confusion.sum(axis=(1, 2))
        rest = counts[1 + 4 * labels :]
        histograms = rest.reshape(labels, 2, BINS) if len(rest) else None
        uneven = (records != records[0]).any() or counts[0] > records[0]
        if histograms is not None:
            uneven |= not np.array_equal(histograms.sum(axis=2), confusion.sum(axis=2))
        if uneven:
            raise PeerError("metric sums: the labels count different records")
        return cls(loss, int(counts[0]), confusion, histograms)

    def describe(self) -> dict[str, float]:
        """Return the metrics; precision, recall, F1, AUC and the like are means over labels.

        `accuracy` is the share of labels that are right, `subset_accuracy` that of records of which
        all are. Undefined precision, recall and F1 count as 0.
        """
        if not self.count:
            return {}
        hits = self.confusion[:, 1, 1].astype(np.float64)
        there, found = self.confusion[:, 1].sum(axis=1), self.confusion[:, :, 1].sum(axis=1)
        right = hits + self.confusion[:, 0, 0]
        metrics = {
            "loss": self.loss_sum / self.count,
            "accuracy": float(right.mean() / self.count),
            "subset_accuracy": self.exact / self.count,
            "precision": float((hits / np.maximum(found, 1)).mean()),
            "recall": float((hits / np.maximum(there, 1)).mean()),
            "f1": float((2 * hits / np.maximum(there + found, 1)).mean()),
        }
        if self.histograms is None:
            return metrics
        scores = {
            "auc": compute_auc(self.histograms),
            "average_precision": compute_average_precision(self.histograms),
            "ece": compute_calibration_error(self.histograms),
        }
        return metrics | {name: value for name, value in scores.items() if value is not None}


def count_label_numbers(labels: int, histograms: bool) -> int:
    """Return the length of `LabelSums.to_flat`."""
    return 2 + 4 * labels + (labels * 2 * BINS if histograms else 0)


def sum_labels(
    logits: Tensor, labels: Tensor, loss_sum: float, *, histograms: bool = True
) -> LabelSums:
    """Add up the records of one site: logits `(n, L)`, labels `(n, L)` of 0 and 1."""
    scores = logits.detach().to("cpu").double().numpy()
    there, found = labels.detach().cpu().numpy() > 0.5, scores > 0
    confusion = np.array(
        [np.bincount(2 * there[:, i] + found[:, i], minlength=4) for i in range(there.shape[1])]
    )
    return LabelSums(
        loss_sum=loss_sum,
        exact=int((there == found).all(axis=1).sum()),
        confusion=confusion.reshape(-1, 2, 2).astype(np.int64),
        histograms=count_scores(scores, there) if histograms else None,
    )

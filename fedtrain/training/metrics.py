"""Metrics from sums over sites: what a site reports is counts, never a score of a record.

A site adds up its records into `MetricSums`, the sums of all sites are added, and
`compute_metrics` reads the metrics off the total. The result is the same as over the pooled
records: exactly for accuracy, precision, recall and F1, to float rounding for the loss, and to
the resolution of a histogram for the AUC.

Shapes: n records, C classes, B = `BINS` bins, K scored classes (`compute_scored_classes`): 1 for
two classes, else C.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt
import torch

from fedtrain.errors import DataError, PeerError, RunFailedError
from fedtrain.training.counts import to_counts
from fedtrain.training.scores import (
    BINS,
    LOG_ODDS_LIMIT,
    Counts,
    Floats,
    compute_auc,
    compute_average_precision,
    compute_calibration_error,
    count_scores,
)

# Every metric of every task, without the split's name before it.
NAMES: Final = (
    *("loss", "accuracy", "precision", "recall", "f1", "auc"),
    *("balanced_accuracy", "average_precision", "ece", "perplexity", "subset_accuracy"),
    *("mae", "rmse", "r2", "recall_at_5"),
)


@dataclass(frozen=True, eq=False)
class MetricSums:
    """Sums over records from which every metric follows; add those of several sites.

    Attributes:
        loss_sum: Sum of the records' losses.
        confusion: `(C, C)`, number of records by label and predicted class.
        score_histograms: `(K, 2, B)`, number of records by bin of the log-odds of a class, for
            records of other classes (0) and of this class (1); None where not wanted.
    """

    loss_sum: float
    confusion: Counts
    score_histograms: Counts | None = None

    @classmethod
    def zero(cls, classes: int, *, histograms: bool = True) -> Self:
        """Return the sums over no record."""
        shape = (compute_scored_classes(classes), 2, BINS)
        return cls(
            loss_sum=0.0,
            confusion=np.zeros((classes, classes), np.int64),
            score_histograms=np.zeros(shape, np.int64) if histograms else None,
        )

    @property
    def count(self) -> int:
        """Number of records."""
        return int(self.confusion.sum())

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.confusion)

    def __add__(self, other: "MetricSums") -> "MetricSums":
        """Return the sums over both sets of records.

        Raises:
            PeerError: The two are of other classes, or only one has histograms.
        """
        mine, theirs = self.score_histograms, other.score_histograms
        if self.classes != other.classes or (mine is None) != (theirs is None):
            raise PeerError(
                f"metric sums of {self.classes} and {other.classes} classes, histograms"
                f" {mine is not None} and {theirs is not None}, cannot be added; all sites must run"
                " the same config"
            )
        return MetricSums(
            loss_sum=self.loss_sum + other.loss_sum,
            confusion=self.confusion + other.confusion,
            score_histograms=None if mine is None or theirs is None else mine + theirs,
        )

    def describe(self) -> dict[str, float]:
        """Return the metrics by name; see `compute_metrics`."""
        return compute_metrics(self)

    def to_flat(self) -> list[float]:
        """Return the sums as `compute_flat_length` numbers: loss, confusion, histograms."""
        parts = [np.array([self.loss_sum]), self.confusion.ravel()]
        if self.score_histograms is not None:
            parts.append(self.score_histograms.ravel())
        flat: list[float] = np.concatenate(parts).astype(np.float64).tolist()
        return flat

    @classmethod
    def from_flat(cls, values: Sequence[float], classes: int) -> Self:
        """Return the sums that `to_flat` wrote.

        Args:
            values: What a site sent.
            classes: C of the run.

        Raises:
            PeerError: The length fits neither form, or a count is negative, fractional, too large
                or does not add up.
        """
        has_histograms = len(values) == compute_flat_length(classes, histograms=True)
        if not has_histograms and len(values) != compute_flat_length(classes, histograms=False):
            raise PeerError(
                f"metric sums have {len(values)} numbers, {classes} classes take"
                f" {compute_flat_length(classes, histograms=False)} or, with histograms,"
                f" {compute_flat_length(classes, histograms=True)}; all sites must run the same"
                " config"
            )
        flat = np.asarray(values, np.float64)
        if not math.isfinite(flat[0]):
            raise PeerError(f"metric sums have a loss of {flat[0]}; a finite one is needed")
        counts = to_counts(flat[1:])
        confusion = counts[: classes**2].reshape(classes, classes)
        if not has_histograms:
            return cls(float(flat[0]), confusion)
        histograms = counts[classes**2 :].reshape(compute_scored_classes(classes), 2, BINS)
        members = confusion.sum(axis=1)[-len(histograms) :]  # of two classes, class 1 is scored
        expected = np.stack([confusion.sum() - members, members], axis=1)
        if not np.array_equal(histograms.sum(axis=2), expected):
            raise PeerError("metric sums: histograms and confusion count different records")
        return cls(float(flat[0]), confusion, histograms)


def compute_scored_classes(classes: int) -> int:
    """Return how many classes have a histogram: of two, the second says all."""
    return 1 if classes == 2 else classes


def compute_flat_length(classes: int, *, histograms: bool) -> int:
    """Return the length of `MetricSums.to_flat`."""
    return 1 + classes**2 + (compute_scored_classes(classes) * 2 * BINS if histograms else 0)


def compute_metric_sums(
    logits: torch.Tensor, labels: torch.Tensor, loss_sum: float, *, histograms: bool = True
) -> MetricSums:
    """Add up the records of one site.

    Args:
        logits: `(n, C)`, C at least 2, any float type.
        labels: `(n,)`, integers in [0, C).
        loss_sum: Sum of the records' losses.
        histograms: Whether to keep what the AUC needs.

    Raises:
        RunFailedError: A logit or the loss is NaN or infinite.
        DataError: A label is no class.
    """
    scores = logits.detach().to("cpu", torch.float64).numpy()
    classes = scores.shape[1]
    if not (math.isfinite(loss_sum) and np.isfinite(scores).all()):
        raise RunFailedError(
            "logits or loss are not finite, the model has diverged; lower training.learning_rate"
        )
    true = labels.detach().cpu().numpy().astype(np.int64, copy=False)
    if len(true) and (true.min() < 0 or true.max() >= classes):
        raise DataError(f"a label is outside 0 to {classes - 1}; check data.label and data.classes")
    predicted = scores.argmax(axis=1)
    confusion = np.bincount(true * classes + predicted, minlength=classes**2)
    return MetricSums(
        loss_sum=float(loss_sum),
        confusion=confusion.reshape(classes, classes),
        score_histograms=_count_class_scores(scores, true, predicted) if histograms else None,
    )


def compute_metrics(sums: MetricSums) -> dict[str, float]:
    """Read the metrics off the sums.

    Args:
        sums: Over all records, of any number of sites.

    Returns:
        `loss` (mean), `accuracy`, `precision`, `recall`, `f1`, `balanced_accuracy` (the mean recall
        of the classes that occur), and `auc`, `average_precision` and `ece` where defined. Of
        two classes, precision, recall and F1 are of class 1; of more, the mean over the classes
        that occur as label or prediction, 0 where undefined (scikit-learn's `average="macro",
        zero_division=0`). Empty for no record.

    Guarantees:
        `auc` is off by at most half the share of pairs (member, non-member) whose log-odds fall
        into one bin: bins are `2 * LOG_ODDS_LIMIT / BINS` = 1/16 wide, the outer two open. It is
        exact where no two do.
    """
    count = sums.count
    if count == 0:
        return {}
    hits = np.diagonal(sums.confusion).astype(np.float64)
    labelled = sums.confusion.sum(axis=1)
    predicted = sums.confusion.sum(axis=0)
    shown = [1] if sums.classes == 2 else np.flatnonzero(labelled + predicted)
    metrics = {
        "loss": sums.loss_sum / count,
        "accuracy": float(hits.sum() / count),
        "precision": float(_divide(hits, predicted)[shown].mean()),
        "recall": float(_divide(hits, labelled)[shown].mean()),
        "f1": float(_divide(2 * hits, labelled + predicted)[shown].mean()),
    }
    there = labelled > 0
    metrics["balanced_accuracy"] = float((hits[there] / labelled[there]).mean())
    if sums.score_histograms is None:
        return metrics
    scores = {
        "auc": compute_auc(sums.score_histograms),
        "average_precision": compute_average_precision(sums.score_histograms),
        "ece": compute_calibration_error(sums.score_histograms),
    }
    return metrics | {name: value for name, value in scores.items() if value is not None}


def compute_log_odds(scores: Floats, top: npt.NDArray[np.intp]) -> Floats:
    """Return each class's log-odds of the softmax, without cancellation.

    Args:
        scores: `(n, C)` finite logits.
        top: `(n,)` class of the largest logit.

    Returns:
        `(n, C)`: logit less the log-sum-exp of the other logits, clipped to
        `[-LOG_ODDS_LIMIT, LOG_ODDS_LIMIT]`.
    """
    rows = np.arange(len(scores))
    shifted = scores - scores[rows, top][:, None]
    odds = np.exp(shifted)  # of every class against the top one, at most 1
    odds[rows, top] = 0.0
    rest = odds.sum(axis=1)
    others = 1.0 + (rest[:, None] - odds)  # for all but the top class; never below 1
    others[rows, top] = np.maximum(rest, np.exp(-2 * LOG_ODDS_LIMIT))
    log_odds: Floats = np.clip(shifted - np.log(others), -LOG_ODDS_LIMIT, LOG_ODDS_LIMIT)
    return log_odds


def _count_class_scores(scores: Floats, true: Counts, predicted: npt.NDArray[np.intp]) -> Counts:
    classes = scores.shape[1]
    scored = compute_scored_classes(classes)
    log_odds = compute_log_odds(scores, predicted)[:, -scored:]
    return count_scores(log_odds, true[:, None] == np.arange(classes - scored, classes))


def _divide(numerator: Floats, denominator: Counts) -> Floats:
    quotient: Floats = numerator / np.maximum(denominator, 1)  # the numerator is 0 there too
    return quotient

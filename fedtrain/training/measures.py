"""What a site sums up of its records for each task, and how the sums are read.

The flat form of any sums begins with numbers that are no counts (`reals` of them, the loss first);
the rest are counts. Secure aggregation bounds the two kinds in its own way; see
`fedtrain.aggregation.build_evaluation_encoding`.

Shapes: n records, k outputs.
"""

import math
from collections.abc import Sequence
from typing import Any, Final, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from fedtrain.config import Config
from fedtrain.config.task import CLASSIFICATION, RECONSTRUCTING
from fedtrain.training.anomaly_metrics import AnomalySums, count_anomaly_numbers, sum_anomalies
from fedtrain.training.label_metrics import LabelSums, count_label_numbers, sum_labels
from fedtrain.training.losses import Loss, build_loss
from fedtrain.training.metrics import MetricSums, compute_flat_length, compute_metric_sums
from fedtrain.training.number_metrics import REALS, NumberSums, sum_numbers

# Beyond, a perplexity says no more than that a model has learned nothing.
MAX_LOG_PERPLEXITY: Final = 50.0


class Sums(Protocol):
    """Sums over records from which every metric follows; add those of several sites."""

    @property
    def count(self) -> int:
        """Number of records."""

    def __add__(self, other: Any) -> Any:
        """Return the sums over both sets of records."""

    def to_flat(self) -> list[float]:
        """Return the sums as numbers: those that are no counts first."""

    def describe(self) -> dict[str, float]:
        """Return the metrics by name; empty for no record."""


class Measure(Protocol):
    """How the records of one task are summed up.

    Attributes:
        reals: How many numbers of the flat form are no counts.
    """

    reals: int

    def compute(
        self, outputs: Tensor, targets: Tensor, labels: Tensor, *, histograms: bool
    ) -> Sums:
        """Add up records: outputs `(n, k)`, what the loss compares them with, and their labels."""

    def count_numbers(self, *, histograms: bool) -> int:
        """Return the length of the flat form."""

    def read(self, values: Sequence[float]) -> Sums:
        """Return the sums that `to_flat` wrote; PeerError where they are none."""

    def describe(self, sums: Sums) -> dict[str, float]:
        """Return the metrics by name; empty for no record."""


def build_measure(config: Config, *, classes: int) -> Measure:
    """Return how a config's task is measured.

    Args:
        config: The resolved config.
        classes: How many classes or outputs the preparation names.
    """
    task, loss = config.data.task or CLASSIFICATION, build_loss(config, training=False)
    if task == CLASSIFICATION:
        return ClassMeasure(loss, classes)
    if task == "multi_label":
        return LabelMeasure(loss, classes)
    if task == "anomaly":
        return AnomalyMeasure(loss)
    low, high = config.data.target_bounds or (0.0, 1.0)
    return NumberMeasure(loss, width=high - low)


class ClassMeasure:
    """Classes: loss, confusion and histograms of scores."""

    reals = 1

    def __init__(self, loss: Loss, classes: int) -> None:
        self._loss, self._classes = loss, classes

    def compute(
        self, outputs: Tensor, targets: Tensor, labels: Tensor, *, histograms: bool
    ) -> MetricSums:
        """See `Measure`."""
        loss_sum = float(self._loss(outputs, targets, reduction="sum"))
        return compute_metric_sums(outputs, labels, loss_sum, histograms=histograms)

    def count_numbers(self, *, histograms: bool) -> int:
        """See `Measure`."""
        return compute_flat_length(self._classes, histograms=histograms)

    def read(self, values: Sequence[float]) -> MetricSums:
        """See `Measure`."""
        return MetricSums.from_flat(values, self._classes)

    def describe(self, sums: Sums) -> dict[str, float]:
        """See `Measure`; `perplexity` where the loss is the likelihood's."""
        metrics = sums.describe()
        if self._loss is functional.cross_entropy and metrics:
            metrics["perplexity"] = math.exp(min(metrics["loss"], MAX_LOG_PERPLEXITY))
        return metrics


class LabelMeasure:
    """Several labels: loss, a confusion and a histogram each."""

    reals = 1

    def __init__(self, loss: Loss, labels: int) -> None:
        self._loss, self._labels = loss, labels

    def compute(
        self, outputs: Tensor, targets: Tensor, labels: Tensor, *, histograms: bool
    ) -> LabelSums:
        """See `Measure`."""
        loss_sum = float(self._loss(outputs, targets, reduction="sum"))
        return sum_labels(outputs, labels, loss_sum, histograms=histograms)

    def count_numbers(self, *, histograms: bool) -> int:
        """See `Measure`."""
        return count_label_numbers(self._labels, histograms)

    def read(self, values: Sequence[float]) -> LabelSums:
        """See `Measure`."""
        return LabelSums.from_flat(values, self._labels)

    def describe(self, sums: Sums) -> dict[str, float]:
        """See `Measure`."""
        return sums.describe()


class NumberMeasure:
    """Numbers: sums of errors and of targets."""

    reals = REALS

    def __init__(self, loss: Loss, *, width: float) -> None:
        self._loss, self._width = loss, width

    def compute(
        self,
        outputs: Tensor,
        targets: Tensor,
        labels: Tensor,  # noqa: ARG002 - targets are what is predicted
        *,
        histograms: bool,  # noqa: ARG002 - numbers have none
    ) -> NumberSums:
        """See `Measure`."""
        loss_sum = float(self._loss(outputs, targets, reduction="sum"))
        return sum_numbers(outputs, targets, loss_sum, width=self._width)

    def count_numbers(self, *, histograms: bool) -> int:
        """See `Measure`."""
        del histograms
        return REALS + 1

    def read(self, values: Sequence[float]) -> NumberSums:
        """See `Measure`."""
        return NumberSums.from_flat(values, width=self._width)

    def describe(self, sums: Sums) -> dict[str, float]:
        """See `Measure`."""
        return sums.describe()


class AnomalyMeasure:
    """An autoencoder's errors of usual records and of anomalies."""

    reals = 1

    def __init__(self, loss: Loss) -> None:
        self._loss = loss

    def compute(
        self, outputs: Tensor, targets: Tensor, labels: Tensor, *, histograms: bool
    ) -> AnomalySums:
        """See `Measure`."""
        return sum_anomalies(outputs, targets, labels, loss=self._loss, histograms=histograms)

    def count_numbers(self, *, histograms: bool) -> int:
        """See `Measure`."""
        return count_anomaly_numbers(histograms)

    def read(self, values: Sequence[float]) -> AnomalySums:
        """See `Measure`."""
        return AnomalySums.from_flat(values)

    def describe(self, sums: Sums) -> dict[str, float]:
        """See `Measure`."""
        return sums.describe()


def reconstructs(config: Config) -> bool:
    """Say whether a model is to return its own input."""
    return config.data.task in RECONSTRUCTING


def take_targets(features: Tensor, labels: Tensor, config: Config) -> Tensor:
    """Return what the loss compares outputs with: the labels, or an autoencoder's own input."""
    return features.flatten(1).to(torch.float32) if reconstructs(config) else labels

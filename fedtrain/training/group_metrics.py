"""Metrics of an evaluation's parts: of sites' own models, and how alike groups are treated.

Shapes: C classes.

References:
    Equalised odds: Hardt, Price and Srebro 2016.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from fedtrain.evaluation_parts import GROUP, OWN
from fedtrain.training.measures import Sums
from fedtrain.training.metrics import MetricSums
from fedtrain.training.scores import Counts

# Nothing is told of a group of fewer test records. Who decodes the sums has them all the same.
MIN_RECORDS: Final = 10


def describe_parts(parts: Mapping[str, Sums | None]) -> dict[str, float]:
    """Return the metrics of an evaluation's parts, by the names of `list_parts`.

    Returns:
        `own_NAME` of the sites' own models, and what `describe_groups` returns.
    """
    own, metrics = parts.get(OWN), dict[str, float]()
    if own is not None:
        metrics = {f"own_{name}": value for name, value in own.describe().items()}
    groups = {name: one for name, one in parts.items() if isinstance(one, MetricSums)}
    return metrics | describe_groups(
        {name.removeprefix(GROUP): one for name, one in groups.items() if name.startswith(GROUP)}
    )


def describe_groups(sums: Mapping[str, MetricSums]) -> dict[str, float]:
    """Read the metrics off the sums of each group.

    Args:
        sums: By the name of the group; groups of fewer than `MIN_RECORDS` are left out: the
            accuracy of one person is what the model says of them.

    Returns:
        `group:NAME_accuracy` of each, `group_worst_accuracy`, and `group_equalised_odds_gap` where
        two groups have records of one class; empty for no record.
    """
    shown = {name: one for name, one in sums.items() if one.count >= MIN_RECORDS}
    if not shown:
        return {}
    accuracies = {name: float(np.trace(one.confusion)) / one.count for name, one in shown.items()}
    metrics = {f"group:{name}_accuracy": value for name, value in accuracies.items()}
    metrics["group_worst_accuracy"] = min(accuracies.values())
    gap = compute_equalised_odds_gap([one.confusion for one in shown.values()])
    return metrics if gap is None else {**metrics, "group_equalised_odds_gap": gap}


def compute_equalised_odds_gap(confusions: list[Counts]) -> float | None:
    """Return how far groups are from equalised odds.

    Of all pairs of a true and a predicted class, the largest difference between two groups of the
    rate at which that class is predicted so. Of two classes this is the larger gap of the true and
    of the false positive rate.

    Args:
        confusions: `(C, C)` of each group, by label and prediction.

    Returns:
        In [0, 1]; 0 is equalised odds. None where no class occurs in two groups.
    """
    gaps = []
    for label in range(len(confusions[0])):
        rows = [matrix[label] for matrix in confusions if matrix[label].sum()]
        if len(rows) > 1:
            rates = np.array([row / row.sum() for row in rows])
            gaps.append(float((rates.max(axis=0) - rates.min(axis=0)).max()))
    return max(gaps) if gaps else None

"""Metrics of the global model, from the sums that sites send.

Shapes: d is the length of the flat parameter vector.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Message
from numpy.typing import NDArray

from fedtrain.errors import PeerError
from fedtrain.protocol import ARRAYS, PART_SUMS, TEST_SUMS, VALIDATION_SUMS
from fedtrain.training.group_metrics import describe_parts
from fedtrain.training.measures import Measure, Sums
from fedtrain.training.metrics import MetricSums

from .flower import read_array

log = logging.getLogger("fedtrain.server")


@dataclass
class Evaluation:
    """What the sites' answers to an evaluation add up to.

    Attributes:
        metrics: Flat metrics over all sites, `val_` and `test_` before their names.
        sites: Each site's own test metrics, by name.
        bytes_up: Payload of the answers.
        bytes_down: Payload of the messages.
        confusion: Test records by class and prediction, `(C, C)`, over all sites; None where the
            task is not classification or nothing was tested.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    sites: dict[str, dict[str, float]] = field(default_factory=dict)
    bytes_up: int = 0
    bytes_down: int = 0
    confusion: list[list[int]] | None = None


def collect_evaluation(
    replies: Iterable[Message],
    *,
    names: Mapping[int, str] | None,
    measure: Measure,
    parts: Sequence[str] = (),
) -> Evaluation:
    """Add up the metric sums of all replies; a reply that cannot be read is logged and left out.

    Args:
        replies: Replies to evaluate messages.
        names: Site name of each node id; None where a reply is a sum over sites.
        measure: How the run's task is measured.
        parts: What is summed up beside validation and test, by the names of `list_parts`.
    """
    keys = (VALIDATION_SUMS, TEST_SUMS, *(f"{PART_SUMS}{name}" for name in parts))
    result = Evaluation()
    totals: dict[str, Sums] = {}
    for reply in replies:
        name = (names or {}).get(reply.metadata.src_node_id, "unknown")
        try:
            found = _read_sums(reply, measure, keys)
        except PeerError as error:
            log.warning("evaluation_dropped site=%s reason=%s", name, error)
            continue
        for key, (sums, size) in found.items():
            totals[key] = totals[key] + sums if key in totals else sums
            result.bytes_up += size
        if TEST_SUMS in found and names is not None:
            own = measure.describe(found[TEST_SUMS][0])
            result.sites[name] = {f"test_{key}": value for key, value in own.items()}
            result.sites[name] |= describe_parts(_take_parts({k: v for k, (v, _) in found.items()}))
    for key, prefix in ((VALIDATION_SUMS, "val"), (TEST_SUMS, "test")):
        if key in totals:
            metrics = measure.describe(totals[key])
            result.metrics |= {f"{prefix}_{name}": value for name, value in metrics.items()}
    tested = totals.get(TEST_SUMS)
    if isinstance(tested, MetricSums):
        result.confusion = tested.confusion.tolist()
    result.metrics |= describe_parts(_take_parts(totals))
    return result


def _take_parts(sums: Mapping[str, Sums]) -> dict[str, Sums | None]:
    """Return the sums of parts alone, by their names."""
    found = {key.partition(PART_SUMS): one for key, one in sums.items()}
    return {name: one for (before, mark, name), one in found.items() if mark and not before}


def _read_sums(
    reply: Message, measure: Measure, keys: Sequence[str]
) -> dict[str, tuple[Sums, int]]:
    if reply.has_error():
        raise PeerError(reply.error.reason)
    parts = {}
    for key in keys:
        flat: NDArray[np.float64] = read_array(
            reply.content.array_records.get(ARRAYS), key, dtype="float64"
        )
        if not np.isfinite(flat).all():
            raise PeerError(f"'{key}' is not finite")
        if len(flat):
            parts[key] = (measure.read(flat.tolist()), flat.nbytes)
    return parts

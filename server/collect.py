"""Replies of a round: checked one by one as they arrive, and folded into their average.

Shapes: d is the length of the flat parameter vector.
"""

import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fedtrain.errors import AuditError, PeerError
from fedtrain.params import Vector, is_finite
from fedtrain.privacy.ledger import LedgerEntry
from fedtrain.protocol import (
    ARRAYS,
    GRADIENT_NORM,
    LEDGER_LINE,
    LOCAL_STEPS,
    METRICS,
    PARAMETERS,
    REFUSED_FOR_GOOD,
    RELEASE,
    TRAIN_LOSS,
    UNSPOKEN,
    WEIGHT,
)
from fedtrain.training_vector import MAX_STEPS

from .flower import read_array, to_array_record

log = logging.getLogger("fedtrain.server")

# No site counts more records than this; a larger weight would drown all others.
MAX_WEIGHT = 1e9
MAX_LEDGER_LINE = 4096
_PIECE = 2**16  # values that are summed at a time: they stay in the second-level cache


@dataclass
class Tally:
    """What happened to the replies of a round.

    Attributes:
        survivors: Sites whose update was usable.
        dropped: Site name and public reason of the others.
        declined: Those of them that said so themselves, and so have released nothing.
        left: Those of them whose policy or budget refuses the run from now on.
        entries: What the sites say that they released, usable or not.
        bytes_up: Payload of the replies.
        bytes_down: Payload of the messages.
    """

    survivors: int = 0
    dropped: list[tuple[str, str]] = field(default_factory=list)
    declined: set[str] = field(default_factory=set)
    left: set[str] = field(default_factory=set)
    entries: list[LedgerEntry] = field(default_factory=list)
    bytes_up: int = 0
    bytes_down: int = 0


def sift(
    replies: Iterable[Message],
    tally: Tally,
    *,
    names: dict[int, str],
    round_: int,
    size: int,
    equal: bool,
    with_loss: bool = True,
    with_steps: bool = False,
) -> Iterator[tuple[Message, Vector]]:
    """Yield the usable train replies with their vectors; count and log the others.

    Args:
        replies: Replies as the grid yields them.
        tally: Filled in while the result is consumed.
        names: Site name of each node id.
        round_: Of the request: what was released for another is not taken.
        size: d.
        equal: Whether every weight must be 1.
        with_loss: Whether a training loss must come with each.
        with_steps: Whether the number of local steps must.
    """
    for reply in replies:
        name = names.get(reply.metadata.src_node_id, "unknown")
        try:
            if reply.has_error():
                if reply.error.code not in UNSPOKEN:
                    tally.declined.add(name)
                if reply.error.code in REFUSED_FOR_GOOD:
                    tally.left.add(name)
                raise PeerError(reply.error.reason)
            # Released, and so spent, even if it proves unusable.
            tally.entries.append(_read_release(reply, name, round_))
            vector = _read_update(reply, size=size, equal=equal, with_loss=with_loss)
            if with_steps:
                _verify_steps(reply)
        except PeerError as error:
            log.warning("update_dropped site=%s reason=%s", name, error)
            tally.dropped.append((name, str(error)))
            continue
        tally.survivors += 1
        tally.bytes_up += vector.nbytes
        yield reply, vector


def sift_sum(replies: Iterable[Message], *, size: int) -> list[tuple[Message, Vector]]:
    """Return the one reply of a secure sum with its vector; nothing where it is not finite."""
    pairs = []
    for reply in replies:
        vector = read_array(reply.content.array_records[ARRAYS], PARAMETERS, dtype="float32")
        if vector.shape == (size,) and np.isfinite(vector).all():
            pairs.append((reply, vector))
    return pairs


def fold(pairs: Iterable[tuple[Message, Vector]], *, size: int) -> Message | None:
    """Return one reply that carries the weighted average of all; None where there is none.

    The sum is taken in float64, in the order given: memory is O(d), whatever the cohort.
    """
    total = torch.zeros(size, dtype=torch.float64)
    parts = torch.split(total, _PIECE)
    weights, steps, losses, last = 0.0, 0.0, list[float](), None
    norms = list[float]()
    for reply, vector in pairs:
        _, metrics = _read_records(reply)
        weight = _read_scalar(metrics, WEIGHT)
        for part, values in zip(parts, torch.split(torch.from_numpy(vector), _PIECE), strict=True):
            part.add_(values.double(), alpha=weight)
        weights += weight
        steps += weight * float(metrics.get(LOCAL_STEPS, 0))  # type: ignore[arg-type]
        if TRAIN_LOSS in metrics:
            losses.append(weight * _read_scalar(metrics, TRAIN_LOSS))
        if GRADIENT_NORM in metrics:
            norms.append(weight * _read_scalar(metrics, GRADIENT_NORM))
        last = reply
    if last is None:
        return None
    average: Vector = total.div_(weights).float().numpy()  # no second float64 vector
    merged: dict[str, int | float | list[int] | list[float]] = {WEIGHT: weights}
    if losses:
        merged[TRAIN_LOSS] = sum(losses) / weights
    if norms:
        merged[GRADIENT_NORM] = sum(norms) / weights
    if steps:
        merged[LOCAL_STEPS] = steps / weights
    last.content = RecordDict({ARRAYS: to_array_record(average), METRICS: MetricRecord(merged)})
    return last


def _read_release(reply: Message, name: str, round_: int) -> LedgerEntry:
    """Return what a site says that it released; taken out of the reply."""
    record = reply.content.get(RELEASE)
    line = record.get(LEDGER_LINE) if isinstance(record, ConfigRecord) else None
    if not isinstance(line, str) or len(line) > MAX_LEDGER_LINE:
        raise PeerError(f"the reply lacks its ledger line, or it is above {MAX_LEDGER_LINE} bytes")
    try:
        entry = LedgerEntry.from_json(line)
    except AuditError as error:
        raise PeerError(f"the reply's ledger line cannot be read: {error}") from error
    if entry.site != name:
        raise PeerError(f"the reply's ledger line is of site {entry.site!r}")
    if entry.round != round_:
        raise PeerError(f"the reply's ledger line is of round {entry.round}, not {round_}")
    del reply.content[RELEASE]
    return entry


def _read_update(reply: Message, *, size: int, equal: bool, with_loss: bool) -> Vector:
    """Return the vector of a reply.

    Raises:
        PeerError: It, its weight or its loss is missing, not finite, or out of bounds.
    """
    arrays, metrics = _read_records(reply)
    vector = read_array(arrays, PARAMETERS, dtype="float32")
    if vector.shape != (size,):
        raise PeerError(f"the update has shape {vector.shape}, the model ({size},)")
    if not is_finite(vector):
        raise PeerError("the update is not finite")
    weight = _read_scalar(metrics, WEIGHT)
    if with_loss:
        _read_scalar(metrics, TRAIN_LOSS)
    if not 0 < weight <= MAX_WEIGHT or (equal and weight != 1):
        bound = "equal to 1" if equal else f"above 0 and at most {MAX_WEIGHT:g}"
        raise PeerError(f"the update's weight is {weight:g}, it must be {bound}")
    return vector.astype(np.float32, copy=False)


def _verify_steps(reply: Message) -> None:
    steps = _read_scalar(_read_records(reply)[1], LOCAL_STEPS)
    if not 0 < steps <= MAX_STEPS:
        raise PeerError(f"{steps:g} local steps; they must be above 0 and at most {MAX_STEPS}")


def _read_records(reply: Message) -> tuple[ArrayRecord, MetricRecord]:
    """Return the two records of a train reply; `content.array_records` would copy them all."""
    arrays, metrics = reply.content.get(ARRAYS), reply.content.get(METRICS)
    others = [
        name
        for name, record in reply.content.items()
        if name not in (ARRAYS, METRICS) and not isinstance(record, ConfigRecord)
    ]
    if not isinstance(arrays, ArrayRecord) or not isinstance(metrics, MetricRecord) or others:
        raise PeerError("a train reply needs one array record and one metric record")
    return arrays, metrics


def _read_scalar(record: MetricRecord, key: str) -> float:
    value = record.get(key)
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise PeerError(f"the reply's '{key}' is missing or not finite")
    return float(value)

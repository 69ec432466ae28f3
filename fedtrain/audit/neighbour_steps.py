"""Neighbour replay: one step with a record and without it, on the same noise.

The difference is what the record added; it may not exceed the clip. All else that the step gives
out must be the same to the bit, or it tells of the record too: a divisor that is a batch's size,
or a data set's, shows in every parameter, also in those that no record touches.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedtrain.audit.plants import Subject
from fedtrain.audit.sentinels import find_table, make_model, pack
from fedtrain.data.shards import Split
from fedtrain.plan import RecordPlan, build_record_plan
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.training.dp_sgd import PrivateGradients

SENTINELS: Final = 8
_INCLUDED: Final = 2
# What float32 may add to a sum in which two large numbers differ by a small one.
_ROUNDING: Final = 2.0**-23
TOLERANCE: Final = 1e-5


@dataclass(frozen=True)
class Replay:
    """What the replays of one batch showed.

    Attributes:
        pairs: Steps that were compared.
        largest: Largest norm that a record or person added, in claimed clips.
        clipped: Whether none added more than its clip and what float32 sums are wrong by.
        untouched_equal: Whether parameters that no record touches were equal to the bit.
    """

    pairs: int
    largest: float
    clipped: bool
    untouched_equal: bool


def replay_neighbours(
    subject: Subject,
    model: torch.nn.Module,
    records: Split,
    *,
    pairs: int,
    step: type[PrivateGradients] = PrivateGradients,
) -> Replay:
    """Take a step on a batch, and again without each of its first and last units.

    Args:
        subject: Whose plan, and what is broken of it.
        model: Start model.
        records: The batch, to which sentinels are added.
        pairs: How many units to leave out, each once, sentinels first.
        step: What makes a step's gradient.
    """
    claim, running = build_record_plan(subject.claim), build_record_plan(subject.running)
    if claim is None or running is None:
        raise ValueError("neighbours are replayed through a step of DP-SGD; the config has none")
    batch = pack(records, np.arange(1, _INCLUDED + 1))
    watched = make_model(model, records, sentinels=SENTINELS, plan=claim)
    gradients = step(watched, running)
    units = _number_units(batch, claim)
    whole = _step(gradients, batch, units, subject=subject)
    place = find_table(watched)
    scale = claim.expected_batch_size / claim.max_grad_norm
    largest, clipped, equal = 0.0, True, True
    left_out = np.unique(units)[::-1][:pairs]
    for unit in left_out.tolist():
        kept = units != unit
        part = Split(batch.features[kept], batch.labels[kept])
        less = _step(gradients, part, units[kept], subject=subject)
        added = float((whole - less).norm()) * scale
        rounding = _ROUNDING * float(whole.norm() + less.norm()) * scale
        largest = max(largest, added)
        clipped &= added <= 1 + TOLERANCE + rounding
        equal &= torch.equal(_untouched(whole, place), _untouched(less, place))
    return Replay(len(left_out), largest, clipped, equal)


def _untouched(flat: Tensor, place: slice) -> Tensor:
    """Return the rows of sentinels that are in no batch."""
    return flat[place][1 + _INCLUDED :]


def _number_units(batch: Split, plan: RecordPlan) -> NDArray[np.int64]:
    if plan.unit == "person" and batch.persons is not None:
        return batch.persons
    return np.arange(len(batch))


def _step(
    gradients: PrivateGradients, batch: Split, units: NDArray[np.int64], *, subject: Subject
) -> Tensor:
    """Return a step's gradient, `(d,)` float64; the noise is the same in every call."""
    plan = build_record_plan(subject.claim)
    by_person = plan is not None and plan.unit == "person"
    parts, _ = gradients.compute(
        torch.from_numpy(batch.features),
        torch.from_numpy(batch.labels),
        noise=SecureGenerator.from_seed(subject.seed, "audit", "replay"),
        owners=torch.from_numpy(units) if by_person else None,
    )
    return torch.cat([part.reshape(-1) for part in parts]).double()

"""Learning rates that change over the rounds, from public numbers alone.

Step, cosine and warm-up follow from the round, so that every site computes them itself. A plateau
follows from validation losses, which only the coordinator has all of: it sends the factor.

Guarantees:
    Every factor is in (0, 1], for every round from 1 on.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fedtrain.config import FederationSection, TrainingSection

DEFAULT_FACTOR: Final = 0.5
# Losses that differ by less than their float32 rounding are no progress.
_LEAST_GAIN: Final = 1e-6


@dataclass(frozen=True)
class Schedule:
    """How a learning rate goes over a run.

    Attributes:
        kind: step, cosine, plateau, or None.
        rounds: step: from drop to drop; plateau: how long a loss may stall.
        factor: What a drop multiplies the rate by.
        warmup: First rounds in which it rises.
    """

    kind: str | None
    rounds: int
    factor: float
    warmup: int

    @property
    def needs_losses(self) -> bool:
        """Whether it follows from validation losses."""
        return self.kind == "plateau"

    def compute_factor(self, round_: int, *, total: int) -> float:
        """Return what a round multiplies the rate by, where that follows from its number.

        Args:
            round_: From 1.
            total: Rounds of the run.
        """
        if round_ < self.warmup:
            return round_ / self.warmup
        after = max(round_ - max(self.warmup, 1), 0)
        if self.kind == "step":
            return max(float(self.factor ** (after // self.rounds)), 1e-12)
        if self.kind == "cosine":
            # Of the last round the middle, so that no round has a rate of 0.
            share = after / max(total - max(self.warmup, 1) + 1, 1)
            return max((1 + math.cos(math.pi * min(share, 1.0))) / 2, 1e-12)
        return 1.0

    def compute_plateau_factor(self, losses: Sequence[float]) -> float:
        """Return what the losses so far multiply the rate by; 1 where it does not follow them."""
        if not self.needs_losses:
            return 1.0
        drops, stalled, best = 0, 0, math.inf
        for loss in losses:
            if loss < best * (1 - _LEAST_GAIN):
                best, stalled = loss, 0
            else:
                stalled += 1
            if stalled == self.rounds:
                drops, stalled = drops + 1, 0
        return max(float(self.factor**drops), 1e-12)


def read_schedule(section: TrainingSection | FederationSection) -> Schedule | None:
    """Return the section's schedule, or None where its rate stays as it is."""
    if section.schedule is None and section.warmup_rounds is None:
        return None
    return Schedule(
        section.schedule,
        section.schedule_rounds or 1,
        section.schedule_factor or DEFAULT_FACTOR,
        section.warmup_rounds or 0,
    )


def has_stalled(losses: Sequence[float], patience: int) -> bool:
    """Say whether the lowest loss is `patience` evaluations or more behind the last."""
    if len(losses) <= patience:
        return False
    lowest = min(range(len(losses)), key=lambda i: losses[i])
    return len(losses) - 1 - lowest >= patience

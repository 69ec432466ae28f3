"""What a model's builder is told of the data."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """The shapes that a model has to fit.

    Attributes:
        input_shape: Shape of one record, without the batch.
        classes: Number of logits.
        is_discrete: Whether records are ids (int64) and not quantities (float32).
    """

    input_shape: tuple[int, ...]
    classes: int
    is_discrete: bool = False

    @property
    def features(self) -> int:
        """Numbers of one record."""
        return math.prod(self.input_shape)

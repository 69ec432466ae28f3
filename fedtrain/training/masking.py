"""Numbers of a record that a model does not see, and is to tell from the others.

A model that can do so has learned how they belong together, without a label: a start for another
task. What is hidden is drawn for each record and step, of a batch's records in a row: so a record's
gradient is its own to who does not know the seed, which a real site under privacy keeps to itself.

Shapes: B records.

References:
    Vincent et al. 2008: denoising autoencoders, with numbers set to 0. He et al. 2022
    (arXiv:2111.06377): masked autoencoders.
"""

from typing import Final

import torch
from torch import Tensor

from fedtrain.config import Config

DEFAULT_SHARE: Final = 0.5
# What is hidden where a model is evaluated is the same in each round.
_EVALUATION_SEED: Final = 0


class Hiding:
    """Sets a share of each record's numbers to 0."""

    def __init__(self, share: float, seed: int) -> None:
        self._share = share
        self._generator = torch.Generator().manual_seed(seed)

    def apply(self, features: Tensor) -> Tensor:
        """Return `(B, ...)` with other numbers hidden at each call."""
        shown = torch.rand(features.shape, generator=self._generator) >= self._share
        return features * shown.to(features)


def start_hiding(config: Config, generator: torch.Generator | None) -> Hiding | None:
    """Return what hides numbers, or None where the task does not ask for it.

    Args:
        config: The resolved config.
        generator: Of the site's round; None for an evaluation.
    """
    if config.data.task != "masked":
        return None
    seed = _EVALUATION_SEED
    if generator is not None:
        seed = int(torch.randint(2**63 - 1, (), generator=generator, dtype=torch.int64))
    share = config.data.mask_share
    return Hiding(DEFAULT_SHARE if share is None else share, seed)

"""Several small numbers in one word of the ring, each with room for a whole cohort's sum.

A ring word is added as one number. Levels of b bits lie side by side in it, each in a lane wide
enough for the sum over a cohort, so that no lane carries over into the next: the sum of the words
holds the sums of the lanes. Masks, shares and messages are as without.

Shapes: s levels, m words.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fedtrain.errors import ConfigError
from fedtrain.secagg.masks import Words

Levels = NDArray[np.int64]


@dataclass(frozen=True)
class Packing:
    """How levels lie in words.

    Attributes:
        half: Levels are whole numbers from -half to half; half = 2^(b-1) - 1.
        width: Bits of a lane.
        lanes: Lanes of a word.

    Guarantees:
        * cohort x 2 half < 2^width and lanes x width <= k: the sum of any survivors' words, taken
          mod 2^k, holds the plain sums of their levels.
    """

    half: int
    width: int
    lanes: int

    @classmethod
    def fit(cls, bits: int, *, cohort: int, ring_bits: int) -> Self:
        """Return the narrowest lanes.

        Args:
            bits: b, at least 2.
            cohort: Most sites whose words may be summed.
            ring_bits: k.

        Raises:
            ConfigError: Not even one lane fits a word.
        """
        half = 2 ** (bits - 1) - 1
        width = (cohort * 2 * half).bit_length()
        if width > ring_bits:
            raise ConfigError(
                f"{cohort} sites at {bits} bits need {width} bits of a sum, above ring_bits ="
                f" {ring_bits}; raise ring_bits or take fewer bits"
            )
        return cls(half, width, ring_bits // width)

    def count_words(self, size: int) -> int:
        """Return how many words hold so many levels."""
        return -(-size // self.lanes)

    def pack(self, levels: Levels, dtype: np.dtype[Any]) -> Words:
        """Return the words `(m,)` of levels `(s,)`."""
        lanes = np.zeros(self.count_words(len(levels)) * self.lanes, np.uint32)
        lanes[: len(levels)] = levels + self.half
        shifted = lanes.reshape(-1, self.lanes) << self._get_shifts()
        words: Words = np.bitwise_or.reduce(shifted, axis=1).astype(dtype)
        return words

    def unpack(self, words: Words, size: int, *, count: int) -> Levels:
        """Return the sums `(s,)` of the levels of `count` sites whose words add up to these."""
        lanes = (words.astype(np.uint32)[:, None] >> self._get_shifts()) & (2**self.width - 1)
        sums: Levels = lanes.reshape(-1)[:size].astype(np.int64) - count * self.half
        return sums

    def _get_shifts(self) -> NDArray[np.uint32]:
        return (np.arange(self.lanes) * self.width).astype(np.uint32)

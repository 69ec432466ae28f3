"""From floats to elements of Z/2^k and back: what the masked vector holds.

A vector is a row of blocks. A "real" block is fixed point, rounded stochastically, so that a sum
of roundings is unbiased; a "count" block is whole numbers, exact. Of a real block of few bits
several coordinates share a word, see `packing`. Each block declares a public bound on what one
site may put in, and an encoding exists only if a whole cohort at its bounds fits the ring: no sum
can wrap. What exceeds a bound is refused at the site, visibly, never clipped.

Shapes: d coordinates of the update, m elements of the whole vector.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from fedtrain.errors import ConfigError, DataError
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.secagg.faults import UpdateRangeError
from fedtrain.secagg.masks import Words
from fedtrain.secagg.packing import Packing

_PIECE: Final = 2**14
_UNITS: Final = 2**32
MIN_RING_BITS: Final = 16
MAX_RING_BITS: Final = 32
Values = npt.NDArray[Any]


@dataclass(frozen=True)
class Block:
    """A part of the vector with one meaning and one bound.

    Attributes:
        name: What it holds, e.g. "update".
        size: Number of coordinates.
        bound: Largest absolute value (real) or largest value (count) of one site, public.
        kind: "real" or "count".
        bits: Of a real coordinate that shares its word with others; None is a word of its own.
    """

    name: str
    size: int
    bound: float
    kind: Literal["real", "count"] = "real"
    bits: int | None = None


def get_word_type(ring_bits: int) -> np.dtype[Any]:
    """Return the type of the words that hold elements of Z/2^k."""
    return np.dtype("<u2" if ring_bits <= 16 else "<u4")


class VectorEncoding:
    """The layout of the vector and the scale of each block, proven to fit the ring.

    Guarantees:
        * cohort x (largest absolute encoded value) < 2^(k-1) for each real block, and
          cohort x bound < 2^k for each count block: the sum of any survivors, taken mod 2^k,
          is their plain sum.
        * Scales are powers of two, but for blocks of few bits: decoding loses nothing, and a
          float32 that is a multiple of the resolution is encoded exactly.
        * A real value is rounded to one of its two neighbours, to the upper one with a
          probability equal to its distance from the lower one (to 2^-32), independently.
    """

    def __init__(self, blocks: tuple[Block, ...], *, cohort: int, ring_bits: int = 32) -> None:
        """Choose the finest scales that fit.

        Args:
            blocks: The parts, in order.
            cohort: Most sites whose vectors may be summed.
            ring_bits: k, 16 to 32.

        Raises:
            ConfigError: A bound is no positive number, or a block does not fit the ring.
        """
        if not MIN_RING_BITS <= ring_bits <= MAX_RING_BITS:
            raise ConfigError(
                f"ring_bits = {ring_bits} is not between {MIN_RING_BITS} and {MAX_RING_BITS}"
            )
        if cohort < 1 or len({block.name for block in blocks}) != len(blocks):
            raise ConfigError(f"cohort = {cohort} must be at least 1 and block names distinct")
        self.blocks = blocks
        self.cohort = cohort
        self.ring_bits = ring_bits
        self.dtype = get_word_type(ring_bits)
        self._packings = {
            block.name: Packing.fit(block.bits, cohort=cohort, ring_bits=ring_bits)
            for block in blocks
            if block.bits is not None
        }
        self.length = sum(self._count_words(block) for block in blocks)
        self.scales = {block.name: self._choose_scale(block) for block in blocks}

    def compute_resolution(self, name: str) -> float:
        """Return the distance of neighbouring encodable values of a block."""
        return 1 / self.scales[name]

    def encode(self, parts: Mapping[str, Values], *, generator: SecureGenerator) -> Words:
        """Encode one site's vector.

        Args:
            parts: (size,) array of each block: floats, or whole numbers for counts.
            generator: Source of the rounding; 4 bytes a real coordinate.

        Returns:
            (m,) words of the ring.

        Raises:
            UpdateRangeError: Values beyond a bound.
            DataError: A value is not finite, not whole where it must be, or a block has another
                shape.
        """
        vector = np.empty(self.length, dtype=self.dtype)
        start = 0
        for block in self.blocks:
            values = np.asarray(parts[block.name])
            if values.shape != (block.size,):
                raise DataError(f"block {block.name}: shape {values.shape}, not ({block.size},)")
            stop = start + self._count_words(block)
            self._encode_block(values, vector[start:stop], block, generator)
            start = stop
        return vector

    def decode_sum(self, total: Words, count: int) -> dict[str, npt.NDArray[np.float64]]:
        """Decode the sum of `count` vectors.

        Args:
            total: (m,) words, the sum in the ring.
            count: How many were summed, at most `cohort`.

        Returns:
            (size,) float64 of each block: the sums, exact for counts.

        Raises:
            ValueError: Another shape or type, or more vectors than the ring was proven for.
        """
        if total.shape != (self.length,) or total.dtype != self.dtype or count > self.cohort:
            raise ValueError(
                f"sum of {count} vectors, shape {total.shape}, {total.dtype}: expected at most"
                f" {self.cohort}, ({self.length},), {self.dtype}"
            )
        decoded, start = {}, 0
        for block in self.blocks:
            stop = start + self._count_words(block)
            decoded[block.name] = self._decode_block(total[start:stop], block, count)
            start = stop
        return decoded

    def _count_words(self, block: Block) -> int:
        packing = self._packings.get(block.name)
        return block.size if packing is None else packing.count_words(block.size)

    def _choose_scale(self, block: Block) -> float:
        if not (block.bound > 0 and math.isfinite(block.bound) and block.size >= 0):
            raise ConfigError(f"block {block.name}: bound {block.bound:g} is not a positive number")
        if block.name in self._packings:
            return self._packings[block.name].half / block.bound
        if block.kind == "count":
            if self.cohort * math.floor(block.bound) < 2**self.ring_bits:
                return 1.0
        else:
            # ceil(bound x scale) is the largest encoded value; the sum must stay below 2^(k-1).
            largest = (2 ** (self.ring_bits - 1) - 1) // self.cohort
            exponent = math.floor(math.log2(largest / block.bound)) if largest else 0
            for power in (exponent + 1, exponent, exponent - 1):
                scale = math.ldexp(1.0, power)
                if self.cohort * math.ceil(block.bound * scale) < 2 ** (self.ring_bits - 1):
                    return scale
        raise ConfigError(
            f"block {block.name}: {self.cohort} sites at {block.bound:g} do not fit"
            f" ring_bits = {self.ring_bits}; raise ring_bits or lower the bound"
        )

    def _encode_block(
        self, values: Values, target: Words, block: Block, generator: SecureGenerator
    ) -> None:
        """Check and encode one block, a piece at a time, all of whose arrays stay in the cache."""
        packing = self._packings.get(block.name)
        # Levels that are packed are rounded into words of their own first.
        levels = target if packing is None else np.empty(block.size, self.dtype)
        outside = 0
        low = 0.0 if block.kind == "count" else -block.bound
        for start in range(0, block.size, _PIECE):
            piece = values[start : start + _PIECE]
            # NaN comes out of min and max and fails the comparison.
            if not (low <= float(piece.min()) and float(piece.max()) <= block.bound):
                outside += _count_outside(piece, low, block)
            if outside:
                continue
            part = levels[start : start + _PIECE]
            if block.kind == "count":
                part[:] = _to_whole(piece, block)
            else:
                self._round(piece, part, block, generator)
        if outside:
            raise UpdateRangeError(
                f"block {block.name}: values beyond {block.bound:g}; clip the update or raise the"
                " bound for the whole run",
                outside,
            )
        if packing is not None:
            signed = levels.view(_get_signed(self.dtype)).astype(np.int64)
            # A quotient of floats may round to a hair beyond the bound's level.
            target[:] = packing.pack(np.clip(signed, -packing.half, packing.half), self.dtype)

    def _round(self, piece: Values, part: Words, block: Block, generator: SecureGenerator) -> None:
        """Write the rounded values of a real block's piece.

        In units of 2^-32: floor(value + 2^32 - 1 - uniform) is the upper neighbour where the
        uniform word is below the value's fraction.
        """
        scaled = np.multiply(piece, self.scales[block.name] * _UNITS, dtype=np.float64)
        fixed = scaled.astype(np.int64)  # below 2^63: the scale keeps values below 2^31
        fixed += _UNITS - 1
        fixed -= generator.draw_bytes(4 * len(piece)).view("<u4")
        fixed >>= 32
        # Below half the ring in absolute value: as a signed word it fits.
        np.copyto(part.view(_get_signed(self.dtype)), fixed, casting="unsafe")

    def _decode_block(self, words: Words, block: Block, count: int) -> npt.NDArray[np.float64]:
        values: Values
        if block.name in self._packings:
            values = self._packings[block.name].unpack(words, block.size, count=count)
        elif block.kind == "count":
            values = words & self.dtype.type(2**self.ring_bits - 1)
        else:
            spare = 8 * self.dtype.itemsize - self.ring_bits
            values = (words << spare).view(_get_signed(self.dtype)) >> spare
        decoded = values.astype(np.float64)
        decoded /= self.scales[block.name]
        return decoded


def _get_signed(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(f"<i{dtype.itemsize}")


def _count_outside(piece: Values, low: float, block: Block) -> int:
    """Return how many values of a piece are beyond the bounds; refuse one that is no number."""
    values = piece.astype(np.float64)
    if not np.isfinite(values).all():
        raise DataError(f"block {block.name}: NaN or infinity; lower the learning rate")
    return int(np.count_nonzero((values < low) | (values > block.bound)))


def _to_whole(piece: Values, block: Block) -> npt.NDArray[np.int64]:
    """Return a count block's values."""
    values = piece.astype(np.float64)
    if (np.floor(values) != values).any():
        raise DataError(f"block {block.name}: a count is not a whole number")
    return values.astype(np.int64)


def make_training_encoding(
    size: int,
    max_update_norm: float,
    *,
    cohort: int,
    max_weight: int = 1,
    metrics: tuple[Block, ...] = (),
    ring_bits: int = 32,
) -> VectorEncoding:
    """Return the encoding of a training round: weighted update, weight, metric sums.

    The block "update" holds weight / max_weight x update: a coordinate of an update of norm
    `max_update_norm` is at most that norm. The block "weight" is the example count, at most
    `max_weight`; their quotient is the average.

    Args:
        size: d, coordinates of the update.
        max_update_norm: Bound on each coordinate's absolute value.
        cohort: Most sites in a round.
        max_weight: Public bound that example counts are clipped to; 1 for equal weights.
        metrics: More blocks, e.g. a loss sum (real) and a confusion matrix (count).
        ring_bits: k.

    Raises:
        ConfigError: It does not fit the ring.
    """
    update = Block("update", size, max_update_norm)
    weight = Block("weight", 1, max_weight, "count")
    return VectorEncoding((update, weight, *metrics), cohort=cohort, ring_bits=ring_bits)

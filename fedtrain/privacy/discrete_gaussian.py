"""Exact draws from the discrete Gaussian N_Z(0, v): an integer x with weight exp(-x^2 / 2v).

The noise of a masked integer sum. No floating-point number decides a draw: floats only sort out
the comparisons that they cannot get wrong, one in 10^9 is left over and decided exactly.

How a draw comes about, and why it is exact. Let t be the block's width, so that |x| = t j + u with
0 <= u < t. Propose

1. a block j with probability n_j / 2^16, a table of whole numbers; the table's last entry stands
   for all blocks from J on, of which J + i is taken with probability 2^-(i + 1) by fair coins;
2. u uniform below t, and a sign by a fair coin, where "minus zero" is proposed anew;
3. and accept with probability (c / n_j) exp(-x^2 / 2v), n_j / 2^(i + 1) in place of n_j from J on.

The product of 1 to 3 is c 2^-17 exp(-x^2 / 2v) / t, the same multiple of the target's weight for
each x, so an accepted x has the target's distribution, whatever c, t and n_j are, as long as step
3 is a probability: n_j >= c exp(-(t j)^2 / 2v), which `_Table` makes sure of. Canonne, Kamath and
Steinke's Algorithm 3 is the same rejection from a discrete Laplace distribution (their Algorithm
2), with steps of its own for e^-1; the table accepts 94 % of large proposals where that accepts
48 %. Step 3 is their Algorithm 1, Bernoulli(exp(-gamma)), decided by comparing the bits of a
uniform number, drawn as far as they are needed, with the number's own.

Legend: n draws, m proposals.
"""

import decimal
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fedtrain.errors import ConfigError
from fedtrain.privacy.generator import SecureGenerator

MAX_VARIANCE: Final = 2**62
_TABLE_BITS: Final = 16
_WORD: Final = 2**32
_PIECE: Final = 2**14  # proposals a pass: its arrays stay in the second-level cache
_TAIL: Final = 12  # above ln(2 x 2^16): c exp(-12) < 1/2, which the tail's first block proposes
_FLOAT_BITS: Final = 40


def draw_discrete_gaussian(
    generator: SecureGenerator, size: int, *, variance: int, float_bits: int = _FLOAT_BITS
) -> npt.NDArray[np.int64]:
    """Draw independent integers from N_Z(0, variance), exactly.

    Args:
        generator: Source of every random bit.
        size: n, how many.
        variance: v, 1 to 2^62. It is the weight's parameter; the variance of the draws is v to
            within 10^-6 (at v = 1), and far closer above.
        float_bits: Comparisons closer than 2^-float_bits are decided exactly and not in floats.
            It changes the time and no draw; tests lower it.

    Returns:
        (n,) int64.

    Raises:
        ConfigError: An argument out of its range.

    Guarantees:
        * The distribution is exactly the discrete Gaussian, given uniform independent bits.
        * Equal streams and arguments give equal integers, at any `float_bits`.
        * No draw overflows: beyond 2^63 there would be less than exp(-2^60 / v).

    References:
        Canonne, Kamath, Steinke 2020 (arXiv:2004.00010), Algorithms 1 to 3; see the module.
    """
    if not 1 <= variance <= MAX_VARIANCE:
        raise ConfigError(f"variance = {variance} is not between 1 and 2^62; change the scale")
    if size < 0 or not 1 <= float_bits <= _FLOAT_BITS:
        raise ConfigError(f"size = {size}, float_bits = {float_bits}: at least 0; 1 to 40")
    table = _build_table(variance)
    result = np.empty(size, dtype=np.int64)
    filled = 0
    while filled < size:
        wanted = size - filled
        accepted = _propose(generator, min(_PIECE, wanted + wanted // 8 + 8), table, float_bits)
        accepted = accepted[:wanted]
        result[filled : filled + len(accepted)] = accepted
        filled += len(accepted)
    return result


@dataclass(frozen=True)
class _Table:
    """The proposal of one variance.

    Attributes:
        variance: v.
        width: t.
        first_tail: J.
        peak: c.
        counts: (J + 1,) n_j, which sum to 2^16.
        blocks: (2^16,) the block of each 16-bit number.
    """

    variance: int
    width: int
    first_tail: int
    peak: int
    counts: npt.NDArray[np.float64]
    blocks: npt.NDArray[np.uint8]


@lru_cache(maxsize=16)
def _build_table(variance: int) -> _Table:
    """Choose the table with the largest c.

    For j < J, n_j > c exp(-(t j)^2 / 2v) by rounding up with room for the float's error. From J
    on, (t J)^2 >= 24 v, so that c exp(-12) < 1/2 = n_J / 2; and from each block to the next the
    weight falls by exp(-(2 j + 1) t^2 / 2v) < exp(-J t^2 / v) < exp(-sqrt(24) / 6) < 1/2, since
    t > sqrt(v) / 6.
    """
    width = math.isqrt(variance) // 6 + 1
    first_tail = math.isqrt(2 * _TAIL * variance // (width * width)) + 1
    weights = np.array([math.exp(-((width * j) ** 2) / (2 * variance)) for j in range(first_tail)])
    room = 2**_TABLE_BITS - 1  # the last count is the tail's

    def count(peak: int) -> npt.NDArray[np.int64]:
        return np.floor(peak * weights + 2.0**-20).astype(np.int64) + 1

    low, high = 1, room
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle).sum() <= room else (low, middle)
    counts = np.append(count(low), 1)
    counts[0] += room + 1 - counts.sum()
    blocks = np.repeat(np.arange(first_tail + 1, dtype=np.uint8), counts)
    return _Table(variance, width, first_tail, low, counts.astype(np.float64), blocks)


def _propose(
    generator: SecureGenerator, m: int, table: _Table, float_bits: int
) -> npt.NDArray[np.int64]:
    """Make m proposals and return those accepted, in order."""
    words = generator.draw_bytes(12 * m).view("<u4").reshape(3, m)
    block = table.blocks[words[0] & np.uint32(2**_TABLE_BITS - 1)]
    negative = words[0] >> np.uint32(31)
    # Lemire's multiplication: the high word is uniform below t once a few low words are refused.
    product = words[1] * np.uint64(table.width)
    offset = (product >> np.uint64(32)).astype(np.int64)
    valid = product.astype(np.uint32) >= np.uint32(_WORD % table.width)
    magnitude = block * np.int64(table.width)
    magnitude += offset
    count = table.counts[block]
    # Accepted where word x n_j < 2^32 c exp(-x^2 / 2v); the left side is exact in floats. The
    # right's relative error is below 2^-45: x is exact and x^2 / 2v at most 20.
    ceiling = magnitude.astype(np.float64)
    ceiling *= ceiling
    ceiling *= -0.5 / table.variance
    np.exp(ceiling, out=ceiling)
    ceiling *= float(_WORD * table.peak)
    count *= words[2]
    ceiling -= count
    slack = table.counts[0] + math.ldexp(_WORD * table.peak, -float_bits)
    accepted = ceiling > 0
    open_cases = (np.abs(ceiling) <= slack) | (block == table.first_tail)
    accepted &= valid
    for i in np.flatnonzero(open_cases & valid).tolist():
        place, accepted[i] = _decide(
            generator, int(block[i]), int(offset[i]), word=int(words[2, i]), table=table
        )
        magnitude[i] = place
    accepted &= (magnitude != 0) | (negative == 0)
    sign = 1 - 2 * negative.astype(np.int64)
    drawn: npt.NDArray[np.int64] = (magnitude * sign)[accepted]
    return drawn


def _decide(
    generator: SecureGenerator, block: int, offset: int, *, word: int, table: _Table
) -> tuple[int, bool]:
    """Return |x| and whether it is accepted, exactly; `word` is the uniform's first 32 bits."""
    numerator, denominator = table.peak, int(table.counts[block])
    if block == table.first_tail:
        further = _draw_geometric(generator)
        block, numerator = block + further, numerator << (further + 1)
    magnitude = block * table.width + offset
    bits = 32
    while True:
        # decimal rounds quotient and exp correctly: 20 digits more than the comparison has.
        context = decimal.Context(prec=20 + bits // 3, Emin=-(10**9), Emax=10**9)
        exponent = context.divide(decimal.Decimal(-(magnitude**2)), 2 * table.variance)
        scaled = context.divide(decimal.Decimal(numerator << bits), denominator)
        ceiling = context.multiply(context.exp(exponent), scaled)
        error = decimal.Decimal("1e-9")
        if word + 1 <= context.subtract(ceiling, error):
            return magnitude, True
        if word >= context.add(ceiling, error):
            return magnitude, False
        word, bits = (word << 32) | _draw_word(generator), bits + 32


def _draw_geometric(generator: SecureGenerator) -> int:
    """Return i with probability 2^-(i + 1)."""
    skipped = 0
    while (word := _draw_word(generator)) == 0:
        skipped += 32
    return skipped + (word & -word).bit_length() - 1


def _draw_word(generator: SecureGenerator) -> int:
    word: Any = generator.draw_bytes(4).view("<u4")[0]
    return int(word)

"""A byte-pair vocabulary from sums over sites, and text as tokens of one.

A text falls into pieces: a word with the space before it, or one other blank. Within a piece, the
two neighbours whose joint text comes first in the vocabulary become one token, until no two do. The
vocabulary's order is thereby all that there is to know: characters first, then what was joined, in
the order in which it was.

Learning needs no text outside its site: in each step a site counts the pairs of neighbours of known
tokens, the counts are added up over sites, pairs below a minimum count are dropped before anybody
looks, and the most frequent become tokens.

References:
    Sennrich, Haddow, Birch 2016 (arXiv:1508.07909): byte-pair encoding of words.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedtrain.errors import ConfigError

UNKNOWN: Final = "<unknown>"
_PIECES: Final = re.compile(r" ?[^\s]+|\s")
STEP: Final = 16  # pairs joined after one sum; each sum costs a round of messages

Counts = NDArray[np.int64]


class BytePairs:
    """Text as ids of a vocabulary.

    Attributes:
        tokens: The vocabulary; its last token stands for characters that it lacks.
    """

    def __init__(self, tokens: Sequence[str]) -> None:
        """Take a vocabulary.

        Raises:
            ConfigError: A token is empty or there twice, or there is only one.
        """
        if len(tokens) < 2 or len(set(tokens)) < len(tokens) or not all(tokens):
            raise ConfigError(
                f"data.vocabulary has {len(tokens)} tokens, some empty or there twice; give at"
                f" least two different ones, '{UNKNOWN}' last"
            )
        self.tokens = tuple(tokens)
        self._ranks = {token: rank for rank, token in enumerate(tokens)}
        self._known: dict[str, tuple[int, ...]] = {}

    def encode(self, text: str) -> NDArray[np.int64]:
        """Return the ids of a text's tokens."""
        ids: list[int] = []
        for piece in _PIECES.findall(text):
            ids.extend(self._encode_piece(piece))
        return np.array(ids, np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids; unknown characters show as the last token."""
        return "".join(self.tokens[number] for number in ids)

    def count_pairs(self, text: str) -> Counts:
        """Return how often each token is followed by each other within a piece, `(V, V)`."""
        size = len(self.tokens)
        counts = np.zeros(size * size, np.int64)
        for piece, times in Counter(_PIECES.findall(text)).items():
            ids = np.array(self._encode_piece(piece))
            np.add.at(counts, ids[:-1] * size + ids[1:], times)
        return counts.reshape(size, size)

    def _encode_piece(self, piece: str) -> tuple[int, ...]:
        found = self._known.get(piece)
        if found is None:
            found = self._known[piece] = self._join(piece)
        return found

    def _join(self, piece: str) -> tuple[int, ...]:
        parts, last = list(piece), len(self.tokens)
        while True:
            ranks = [self._ranks.get(a + b, last) for a, b in pairwise(parts)]
            best = min(ranks, default=last)
            if best == last:
                return tuple(self._ranks.get(part, last - 1) for part in parts)
            place = ranks.index(best)
            parts[place : place + 2] = [parts[place] + parts[place + 1]]


def learn_vocabulary(
    texts: Mapping[str, str], characters: Sequence[str], *, size: int, min_count: int
) -> tuple[str, ...]:
    """Learn a vocabulary from sums of pair counts over sites.

    Args:
        texts: Each site's text; of it only counts are added to those of other sites.
        characters: The public alphabet, `UNKNOWN` last.
        size: Tokens that are wanted.
        min_count: Fewest times that a pair must be there, over all sites.

    Returns:
        At most `size` tokens, `UNKNOWN` last; fewer where no pair is frequent enough.

    Guarantees:
        What is not frequent over all sites together is in no token. It is not differential
        privacy: a pair that one site has `min_count` times is a token.
    """
    if min_count < 2 or size < len(characters):
        raise ConfigError(
            f"size = {size}, min_count = {min_count}: at least {len(characters)} tokens and a"
            " minimum of 2 are needed"
        )
    tokens = tuple(characters)
    while len(tokens) < size:
        pairs = BytePairs(tokens)
        total = np.zeros((len(tokens), len(tokens)), np.int64)
        for text in texts.values():
            total += pairs.count_pairs(text)
        wanted = min(STEP, size - len(tokens))
        joined = choose_pairs(total, tokens, wanted=wanted, min_count=min_count)
        if not joined:
            return tokens
        tokens = (*tokens[:-1], *joined, tokens[-1])
    return tokens


def leave_out_boundaries(total: NDArray[Any], tokens: Sequence[str]) -> NDArray[Any]:
    """Return counts of neighbours `(V, V)` without those that belong to two pieces of a text."""
    blank = np.array([text.isspace() and not text.endswith(" ") for text in tokens])
    begins = np.array([text[:1].isspace() for text in tokens])
    return np.where(blank[:, None] | begins[None, :], 0, total)


def choose_pairs(
    total: NDArray[Any], tokens: Sequence[str], *, wanted: int, min_count: float
) -> tuple[str, ...]:
    """Return the texts of the most frequent pairs, none of which shares a token with another.

    Args:
        total: Sum over sites, `(V, V)`.
        tokens: The vocabulary, its last token for unknown characters.
        wanted: How many at most.
        min_count: Pairs below it are left out.
    """
    counts = np.where(total >= min_count, total, 0)
    counts[-1], counts[:, -1] = 0, 0
    chosen: list[str] = []
    used: set[int] = set()
    for cell in np.argsort(-counts, axis=None, kind="stable"):
        first, second = divmod(int(cell), len(tokens))
        if len(chosen) == wanted or not counts[first, second]:
            break
        text = tokens[first] + tokens[second]
        if {first, second} & used or text in chosen or text in tokens:
            continue
        used |= {first, second}
        chosen.append(text)
    return tuple(chosen)

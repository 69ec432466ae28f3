"""How long to wait before a lost connection is tried again."""

import random
from typing import Final

FIRST_SECONDS: Final = 1.0
LONGEST_SECONDS: Final = 30.0


class Backoff:
    """Waits that double, each with jitter, so that many sites do not come back at once."""

    def __init__(self, *, first: float = FIRST_SECONDS, longest: float = LONGEST_SECONDS) -> None:
        self._first = first
        self._longest = longest
        self._failures = 0

    def reset(self) -> None:
        """Begin anew: something worked."""
        self._failures = 0

    def next(self) -> float:
        """Return the next wait in seconds: between half of the doubled one and all of it."""
        ceiling = min(self._longest, self._first * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return ceiling * random.uniform(0.5, 1.0)

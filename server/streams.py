"""Streams that make no progress are ended: a slow or silent peer holds no thread for long."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol


class Cancellable(Protocol):
    """A call that can be ended from outside."""

    def cancel(self) -> object:
        """End it."""


@dataclass
class Stream:
    """One call, and when it last moved."""

    call: Cancellable
    moved: float


class StreamWatch:
    """Ends calls that have not moved for a while.

    Args:
        seconds: How long is too long.
        clock: Monotonic seconds.
    """

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[int, Stream] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="streams", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    @contextmanager
    def follow(self, call: Cancellable) -> Iterator[Callable[[], None]]:
        """Watch a call; what is yielded is to be called whenever it has moved."""
        stream = Stream(call, self._clock())

        def move() -> None:
            stream.moved = self._clock()

        with self._lock:
            self._known[id(stream)] = stream
        try:
            yield move
        finally:
            with self._lock:
                del self._known[id(stream)]

    def look(self) -> int:
        """End the calls that have not moved; return how many."""
        limit = self._clock() - self._seconds
        with self._lock:
            stuck = [stream for stream in self._known.values() if stream.moved < limit]
        for stream in stuck:
            stream.call.cancel()
        return len(stuck)

    def _work(self) -> None:
        while not self._ended.wait(self._seconds / 4):
            self.look()

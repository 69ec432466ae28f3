"""How an agent is told to stop: by SIGTERM or SIGINT, with some time for the task at hand."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Dropped(BaseException):
    """The task at hand is given up: the agent stops now, and the task comes again.

    No `Exception`, so that no app turns it into an answer. It is to a task what a kill is: whatever
    must survive that survives this.
    """


class Stop:
    """Whether the agent is to stop.

    Attributes:
        is_wanted: A signal came: no new task is taken.
        is_late: The time for the task at hand is over, or a second signal came.
    """

    def __init__(self, seconds: float) -> None:
        """Take the time that a task at hand has.

        Args:
            seconds: From the signal on.
        """
        self._seconds = max(seconds, 1e-3)  # 0 would be no alarm at all
        self._is_in_task = False
        self.is_wanted = False
        self.is_late = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen for signals; only in a process's main thread."""
        previous = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        previous[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._on_alarm)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in previous.items():
                signal.signal(number, handler)

    @contextmanager
    def in_task(self) -> Iterator[None]:
        """Let what is done within be given up when the time is over.

        Raises:
            Dropped: So it is.
        """
        self._is_in_task = True
        try:
            if self.is_late:
                raise Dropped
            yield
        finally:
            self._is_in_task = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.is_wanted:
            self._on_alarm(number, frame)
        # Nothing but assignments: the handler may interrupt whoever holds a lock.
        self.is_wanted = True
        signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def _on_alarm(self, _: int, __: FrameType | None) -> None:
        self.is_late = True
        if self._is_in_task:
            self._is_in_task = False
            raise Dropped

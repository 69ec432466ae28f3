"""What sites are asked at the moment: the meeting point of a run's thread and the sites' calls.

Memory and disk change together, under the database's lock; threads wait on conditions of it, and
nobody polls. Only one exchange is open at a time.
"""

import threading
import time
from collections.abc import Callable, Collection, Sequence

from .database import Database
from .store import Content, Store, StoredReply, Task

Clock = Callable[[], float]


class Outstanding:
    """The open tasks of all sites.

    Args:
        database: Whose lock is used.
        store: Where tasks and replies are kept.
        clock: Monotonic seconds.
    """

    def __init__(self, database: Database, store: Store, *, clock: Clock = time.monotonic) -> None:
        self._lock = database.lock
        self._store = store
        self._clock = clock
        self._answered = threading.Condition(self._lock)
        self._asked: dict[str, threading.Condition] = {}
        self._deadlines: dict[bytes, float] = {}
        self._open: dict[bytes, Task] = {}
        for task in store.load_open_tasks():
            self._add(task)

    def open_exchange(self, tasks: Sequence[Task]) -> None:
        """Ask sites, each whose reply is not known yet; what others were asked is withdrawn.

        Raises:
            CoordinatorError: The tasks cannot be written; nobody is asked.
        """
        with self._lock:
            wanted = {task.id for task in tasks}
            stale = [task for task in self._open if task not in wanted]
            if stale:
                self._store.withdraw(stale)
            for task in stale:
                self._remove(task)
            answered = self._store.find_answered(wanted)
            asked = [task for task in tasks if task.id not in answered]
            if any(task.id not in self._open for task in asked):
                self._store.add_tasks(asked)
            for new in asked:
                self._add(new)
                self._get_condition(new.site).notify_all()

    def wait_for_task(
        self, site: str, seconds: float, *, is_over: Callable[[], bool], takes_tasks: bool = True
    ) -> Task | None:
        """Return the first task that a site is asked, as soon as there is one.

        The same task comes again until it is answered: the call that had it may have been lost.

        Args:
            site: Name.
            seconds: How long to wait for one.
            is_over: Whether nobody waits any more; looked at whenever the site is woken.
            takes_tasks: Whether the site wants one; else it only waits.
        """

        def find() -> Task | None:
            return self._find(site) if takes_tasks and not is_over() else None

        with self._lock:
            condition = self._get_condition(site)
            condition.wait_for(lambda: is_over() or find() is not None, seconds)
            return find()

    def wake(self, site: str) -> None:
        """Let the calls that wait for a site's task look whether they still should."""
        with self._lock:
            self._get_condition(site).notify_all()

    def wake_all(self) -> None:
        """Let everybody who waits look whether he still should."""
        with self._lock:
            for condition in (self._answered, *self._asked.values()):
                condition.notify_all()

    def find(self, task: bytes, site: str) -> Task | None:
        """Return an open task of a site; None where it is answered, withdrawn or another's."""
        with self._lock:
            found = self._open.get(task)
            return found if found is not None and found.site == site else None

    def get_seconds_left(self, task: bytes) -> float:
        """Return how long the reply to a task is still of use."""
        with self._lock:
            return max(0.0, self._deadlines.get(task, 0.0) - self._clock())

    def answer(self, task: Task, content: Content) -> bool:
        """Keep a site's reply; say whether it was waited for.

        Raises:
            CoordinatorError: It cannot be written; the site is to send it again.
        """
        with self._lock:
            if task.id not in self._open:
                return False
            self._store.add_reply(task, content)
            self._remove(task.id)
            self._answered.notify_all()
            return True

    def answer_for(self, tasks: Collection[bytes], error: tuple[int, str]) -> None:
        """Close open tasks with an error in their sites' name; the others stay as they are.

        Raises:
            CoordinatorError: It cannot be written; the tasks stay open.
        """
        with self._lock:
            still_open = [self._open[task] for task in tasks if task in self._open]
            if not still_open:
                return
            self._store.add_errors(still_open, error)
            for task in still_open:
                self._remove(task.id)
            self._answered.notify_all()

    def answer_for_strangers(self, members: Collection[str], error: tuple[int, str]) -> None:
        """Close all that is asked of sites that are no members with an error in their name."""
        with self._lock:
            self.answer_for([t.id for t in self._open.values() if t.site not in members], error)

    def wait_for_reply(
        self, task: bytes, deadline: float, *, is_over: Callable[[], bool]
    ) -> StoredReply | None:
        """Return a task's reply as soon as it is there, or None at the deadline or when over.

        Args:
            task: Its id.
            deadline: By the clock.
            is_over: Whether nobody waits any more; looked at when woken.
        """
        with self._lock:
            self._answered.wait_for(
                lambda: task not in self._open or is_over(), max(0.0, deadline - self._clock())
            )
            return None if task in self._open else self._store.load_reply(task)

    def count(self) -> int:
        """Return how many tasks are open."""
        with self._lock:
            return len(self._open)

    def _find(self, site: str) -> Task | None:
        return next((task for task in self._open.values() if task.site == site), None)

    def _get_condition(self, site: str) -> threading.Condition:
        return self._asked.setdefault(site, threading.Condition(self._lock))

    def _add(self, task: Task) -> None:
        self._open[task.id] = task
        self._deadlines[task.id] = self._clock() + task.seconds

    def _remove(self, task: bytes) -> None:
        self._open.pop(task, None)
        self._deadlines.pop(task, None)

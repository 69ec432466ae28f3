"""The in-process grid: Flower's `Grid`, with the sites in this process or in workers of its own.

With one worker a message is handed to the ClientApp by reference. With more, each worker is a
process with one torch thread; see `workers`. Replies come in the order of the messages, whatever
order they were finished in, so that a run's result does not depend on the number of workers.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedtrain.protocol import INTERNAL_ERROR, NO_ANSWER, SECAGG_ACTION

from .flower import make_context, set_identity, set_message_id
from .loading import load_app
from .metering import GridMeter, WorkClock
from .workers import WorkerPool

FIRST_NODE_ID = 2  # 1 is the coordinator


class InProcessGrid(Grid):
    """Sends messages to simulated sites.

    Args:
        app: Reference `module:name` of the ClientApp.
        sites: Number of sites; site i is node `FIRST_NODE_ID + i`.
        workers: Worker processes; 1 is this process.
        log: File that workers write their log to.
        results: Folder that sites write their own metrics to.
        kept: Folder in which sites keep what is their own of the run.

    Attributes:
        meter: Knows what each site cost.
    """

    def __init__(
        self,
        app: str,
        *,
        sites: int,
        workers: int = 1,
        log: Path | None = None,
        results: Path | None = None,
        sites_directory: str | None = None,
        kept: Path | None = None,
    ) -> None:
        set_identity()
        self._results = "" if results is None else str(results)
        self._kept = "" if kept is None else str(kept)
        self._sites_directory = sites_directory or ""
        self._sites = sites
        self._run: Run | None = None
        self._app: ClientApp | None = None
        self._pool: WorkerPool | None = None
        self._contexts: dict[int, Context] = {}
        self._sent = 0
        self._waiting: dict[str, Message] = {}
        self.meter = GridMeter()
        if workers == 1:
            self._app = load_app(app)
        else:
            note = partial(self.meter.note_work, here=False)
            self._pool = WorkerPool(app, workers=workers, log=log, note=note)

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.close()

    def __enter__(self) -> "InProcessGrid":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def set_run(self, run: Run) -> None:
        """Set the run."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run, if one was set."""
        if self._run is None:
            raise RuntimeError("no run is set")
        return self._run

    def create_message(self, *args: object, **kwargs: object) -> Message:
        """Refuse: deprecated in Flower."""
        raise NotImplementedError("construct a flwr.app.Message instead")

    def get_node_ids(self) -> Iterable[int]:
        """Return all sites' node ids."""
        return range(FIRST_NODE_ID, FIRST_NODE_ID + self._sites)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Keep messages until their replies are pulled; return their ids."""
        ids = []
        for message in messages:
            self._identify(message)
            self._waiting[message.metadata.message_id] = message
            ids.append(message.metadata.message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Run pushed messages and return their replies."""
        messages = [self._waiting.pop(i) for i in message_ids if i in self._waiting]
        return list(self._deliver(messages, None))

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        """Yield the replies, in the messages' order, each as soon as those before it are there.

        Args:
            messages: One a site.
            timeout: Seconds from now after which sites that have not answered are dropped. In one
                process a site that has begun is waited for.
        """
        ready = list(messages)
        for message in ready:
            self._identify(message)
        return self._deliver(ready, timeout)

    def _identify(self, message: Message) -> None:
        self._sent += 1
        set_message_id(message, str(self._sent))

    def _deliver(self, messages: Sequence[Message], timeout: float | None) -> Iterator[Message]:
        for message in messages:
            self.meter.note_sent(message)
        for reply in self._answer(messages, timeout):
            self.meter.note_reply(reply)
            yield reply

    def _answer(self, messages: Sequence[Message], timeout: float | None) -> Iterator[Message]:
        deadline = None if timeout is None else time.monotonic() + timeout
        if self._pool is not None:
            sticky = any(SECAGG_ACTION in m.metadata.message_type for m in messages)
            yield from self._pool.run(
                messages, self._make_node_config, deadline=deadline, sticky=sticky
            )
            return
        for message in messages:
            if deadline is not None and time.monotonic() > deadline:
                yield make_error_reply(message, NO_ANSWER)
            else:
                yield self._call(message)

    def _call(self, message: Message) -> Message:
        node_id = message.metadata.dst_node_id
        if node_id not in self._contexts:
            self._contexts[node_id] = make_context(node_id, self._make_node_config(node_id), {})
        if self._app is None:
            raise RuntimeError("this grid's sites are in workers")
        clock = WorkClock()
        try:
            with clock:
                reply = self._app(message, self._contexts[node_id])
        except Exception:  # noqa: BLE001 - an app's exception text must not reach the coordinator
            reply = make_error_reply(message, INTERNAL_ERROR)
        self.meter.note_work(node_id, clock.spent, here=True)
        return reply

    def _make_node_config(self, node_id: int) -> dict[str, Any]:
        return {
            "partition-id": node_id - FIRST_NODE_ID,
            "num-partitions": self._sites,
            "randomness": "simulated",
            "results-dir": self._results,
            "sites-dir": self._sites_directory,
            "kept-dir": self._kept,
        }


def make_error_reply(message: Message, public: tuple[int, str]) -> Message:
    """Return an error reply in a site's name."""
    code, reason = public
    return Message(Error(code=code, reason=reason), reply_to=message)

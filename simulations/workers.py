"""Worker processes of the in-process grid.

Each worker has one torch thread and its own copy of the data source: one a worker, not one a site.
The global arrays reach it through shared memory once a round. It holds at most two tasks, so that
it never waits for the next. A worker that dies is started again; the site that it was at is tried
once more, then counted as dropped.

Parent and worker are one program on one machine; what they say to each other over their pipe is
pickled. Nothing from outside crosses it.
"""

import ctypes
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

import torch
from flwr.app import Context, Error, Message, RecordDict

from fedtrain.costs import SiteCost
from fedtrain.journal import write_log_to
from fedtrain.protocol import INTERNAL_ERROR, NO_ANSWER

from .blocks import Block, Mirror, Payload
from .flower import COORDINATOR_NODE_ID, make_context, make_message, make_metadata, set_identity
from .loading import load_app
from .metering import WorkClock

QUEUE: Final = 2  # tasks a worker holds: the one it is at and the next
ATTEMPTS: Final = 2
AHEAD: Final = 4  # results a worker may be ahead of the oldest that is missing
# Imported once by the server that workers are forked from.
PRELOAD: Final = ("fedtrain.training.dp_sgd", "fedtrain.data.sources")
NodeConfig = Callable[[int], dict[str, Any]]
NoteWork = Callable[[int, SiteCost], None]


@dataclass(frozen=True)
class Task:
    """One site's message; its content is the last `Payload` that was sent."""

    position: int
    message_id: str
    node_id: int
    message_type: str
    node_config: dict[str, Any]


@dataclass(frozen=True)
class Result:
    """A site's reply: what it holds, or its error; and what the work cost."""

    position: int
    payload: Payload | None
    error: tuple[int, str] | None
    spent: SiteCost


class Worker:
    """The parent's end of one worker process."""

    def __init__(self, app: str, log: Path | None) -> None:
        self._app = app
        self._log = log
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None
        self.outstanding: deque[int] = deque()
        self._pid = 0
        self._content: RecordDict | None = None
        self._block = Block()
        self._mirrors: list[Mirror] = []
        self._received = 0

    @property
    def connection(self) -> Connection:
        """The pipe to the process, which is started if it is not running."""
        if self._connection is None:
            self._start()
        if self._connection is None:
            raise RuntimeError("the worker has no connection")
        return self._connection

    def send(self, task: Task, content: RecordDict) -> None:
        """Queue a task; its content is written to shared memory unless it is there already."""
        connection = self.connection
        if content is not self._content:
            self._content = content
            payload = self._block.write(content)
            connection.send(payload)
            if payload.grown:
                self._block.send(connection, self._pid)
        connection.send(task)
        self.outstanding.append(task.position)

    def can_take(self, content: RecordDict) -> bool:
        """Return whether a task with this content may be queued.

        A new content is written over the old one: only when the worker has nothing left to do.
        """
        same = self._connection is not None and content is self._content
        return len(self.outstanding) < (QUEUE if same else 1)

    def receive(self) -> tuple[Result, RecordDict | None]:
        """Return the next result, its arrays copied out of shared memory.

        Raises:
            EOFError: The process has ended.
        """
        connection = self.connection
        result: Result = connection.recv()
        mirror = self._mirrors[self._received % QUEUE]
        if result.payload is not None and result.payload.grown:
            mirror.receive(connection)
        content = None if result.payload is None else mirror.read(result.payload)
        self._received += 1
        self.outstanding.popleft()  # only now: until here the task is still the worker's
        return result, content

    def stop(self) -> list[int]:
        """End the process; return the positions that it still had."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
        self._process, self._connection = None, None
        left, self.outstanding = list(self.outstanding), deque()
        return left

    def _start(self) -> None:
        context = _get_context(self._app)
        self._connection, theirs = context.Pipe(duplex=True)
        self._process = context.Process(
            target=work, args=(theirs, self._app, self._log), daemon=True
        )
        self._process.start()
        theirs.close()
        self._pid = self._process.pid or 0
        self._content = None
        self._block = Block()
        self._mirrors = [Mirror() for _ in range(QUEUE)]
        self._received = 0


@dataclass
class Batch:
    """The messages of one `send_and_receive`, and how far they are.

    Attributes:
        queues: What waits for each worker; where any may take any, one queue stands in all places.
        homes: Worker whose queue each message belongs to.
        replies: Finished, but not yet their turn.
        next: The oldest that is missing.
    """

    messages: Sequence[Message]
    queues: list[deque[int]]
    homes: list[int]
    replies: dict[int, Message] = field(default_factory=dict)
    attempts: dict[int, int] = field(default_factory=dict)
    next: int = 0

    def fail(self, position: int, public: tuple[int, str]) -> None:
        """Answer in a site's name that it has no answer."""
        error = Error(code=public[0], reason=public[1])
        self.replies[position] = Message(error, reply_to=self.messages[position])

    def give_back(self, positions: Sequence[int]) -> None:
        """Take back what a worker had when it died; the first it was at."""
        for position in reversed(positions[1:]):
            self.queues[self.homes[position]].appendleft(position)
        for position in positions[:1]:
            self.attempts[position] = self.attempts.get(position, 0) + 1
            if self.attempts[position] < ATTEMPTS:
                self.queues[self.homes[position]].appendleft(position)
            else:
                self.fail(position, NO_ANSWER)


class WorkerPool:
    """Runs messages on worker processes and yields replies in the messages' order."""

    def __init__(
        self, app: str, *, workers: int, log: Path | None = None, note: NoteWork | None = None
    ) -> None:
        """Make the workers.

        Args:
            app: Reference `module:name` of the ClientApp.
            workers: Processes.
            log: File that they write their log to.
            note: Told what each answer of a node cost.
        """
        self._note = note
        self._workers = [Worker(app, log) for _ in range(workers)]

    def close(self) -> None:
        """End all processes."""
        for worker in self._workers:
            worker.stop()

    def run(
        self,
        messages: Sequence[Message],
        node_config: NodeConfig,
        *,
        deadline: float | None,
        sticky: bool = False,
    ) -> Iterator[Message]:
        """Yield one reply a message; see `InProcessGrid.send_and_receive`.

        Args:
            messages: Identified messages.
            node_config: Returns a node's own configuration.
            deadline: Monotonic time after which what is missing is answered by an error.
            sticky: Whether a node's messages all go to one worker, which holds its state.
        """
        batch = self._make_batch(messages, sticky=sticky)
        try:
            while batch.next < len(messages):
                if batch.next in batch.replies:
                    yield batch.replies.pop(batch.next)
                    batch.next += 1
                    continue
                self._dispatch(batch, node_config)
                if not self._collect(batch, deadline):
                    self._give_up(batch)
        finally:
            for worker in self._workers:
                if worker.outstanding:  # nobody waits for its results any more
                    worker.stop()

    def _make_batch(self, messages: Sequence[Message], *, sticky: bool) -> Batch:
        count = len(self._workers)
        if not sticky:
            everything = deque(range(len(messages)))
            return Batch(messages, [everything] * count, [0] * len(messages))
        homes = [message.metadata.dst_node_id % count for message in messages]
        queues: list[deque[int]] = [deque() for _ in self._workers]
        for position, home in enumerate(homes):
            queues[home].append(position)
        return Batch(messages, queues, homes)

    def _dispatch(self, batch: Batch, node_config: NodeConfig) -> None:
        limit = batch.next + AHEAD * len(self._workers)
        for depth in range(QUEUE):
            for worker, queue in zip(self._workers, batch.queues, strict=True):
                if not queue or queue[0] >= limit:
                    continue
                message = batch.messages[queue[0]]
                if len(worker.outstanding) == depth and worker.can_take(message.content):
                    self._send(worker, batch, queue.popleft(), node_config=node_config)

    def _send(
        self, worker: Worker, batch: Batch, position: int, *, node_config: NodeConfig
    ) -> None:
        message = batch.messages[position]
        node_id = message.metadata.dst_node_id
        task = Task(
            position=position,
            message_id=message.metadata.message_id,
            node_id=node_id,
            message_type=message.metadata.message_type,
            node_config=node_config(node_id),
        )
        try:
            worker.send(task, message.content)
        except (BrokenPipeError, ConnectionResetError):
            batch.give_back([*worker.stop(), position])

    def _collect(self, batch: Batch, deadline: float | None) -> bool:
        """Take in what workers have finished; return False when the deadline has passed."""
        busy = {worker.connection: worker for worker in self._workers if worker.outstanding}
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready = wait(list(busy), timeout=left)
        for connection in ready:
            worker = busy[connection]  # type: ignore[index]
            try:
                result, content = worker.receive()
            except (EOFError, ConnectionResetError):
                batch.give_back(worker.stop())
                continue
            if self._note is not None:
                node_id = batch.messages[result.position].metadata.dst_node_id
                self._note(node_id, result.spent)
            if content is None:
                batch.fail(result.position, result.error or INTERNAL_ERROR)
            else:
                batch.replies[result.position] = Message(
                    content, reply_to=batch.messages[result.position]
                )
        return bool(ready)

    def _give_up(self, batch: Batch) -> None:
        for worker in self._workers:
            for position in worker.stop():
                batch.fail(position, NO_ANSWER)
        for queue in batch.queues:
            while queue:
                batch.fail(queue.popleft(), NO_ANSWER)


def work(connection: Connection, app: str, log: Path | None) -> None:
    """Answer tasks until the parent is gone; runs in the worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    torch.set_num_threads(1)
    keep_freed_memory()
    set_identity()
    if log is not None:
        write_log_to(log)
    client_app = load_app(app)
    contexts: dict[int, Context] = {}
    down, blocks, answered = Mirror(), [Block() for _ in range(QUEUE)], 0
    content = RecordDict()
    while True:
        try:
            order = connection.recv()
        except (EOFError, ConnectionResetError):
            return
        if isinstance(order, Payload):
            if order.grown:
                down.receive(connection)
            content = down.read(order)
            continue
        block = blocks[answered % QUEUE]
        answered += 1
        result = _answer(client_app, order, content, contexts=contexts, block=block)
        connection.send(result)
        if result.payload is not None and result.payload.grown:
            block.send(connection, os.getppid())


def _answer(
    client_app: Any,
    task: Task,
    content: RecordDict,
    *,
    contexts: dict[int, Context],
    block: Block,
) -> Result:
    if task.node_id not in contexts:
        contexts[task.node_id] = make_context(task.node_id, task.node_config, {})
    metadata = make_metadata(
        message_id=task.message_id,
        src_node_id=COORDINATOR_NODE_ID,
        dst_node_id=task.node_id,
        reply_to="",
        message_type=task.message_type,
    )
    message, clock = make_message(metadata, RecordDict(dict(content)), None), WorkClock()
    try:
        with clock:
            reply = client_app(message, contexts[task.node_id])
    except Exception:  # noqa: BLE001 - an app's exception text must not reach the coordinator
        return Result(task.position, None, INTERNAL_ERROR, clock.spent)
    if reply.has_error():
        public = reply.error.code, reply.error.reason
        return Result(task.position, None, public, clock.spent)
    return Result(task.position, block.write(reply.content), None, clock.spent)


def keep_freed_memory() -> None:
    """Tell glibc to keep freed blocks of up to 32 MiB for the next allocation.

    By default each gradient of a megabyte is new memory from the kernel, page by page.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return  # not glibc: only slower
    mallopt(-3, 32 * 2**20)  # M_MMAP_THRESHOLD
    mallopt(-1, 512 * 2**20)  # M_TRIM_THRESHOLD


def _get_context(app: str) -> Any:
    """Return the way to start workers: a server that has imported all they need, and forks."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, app.partition(":")[0], *PRELOAD])
    return context

"""The grid of deployed sites: Flower's `Grid` over the link.

Messages become tasks whose ids are digests of what they say. A coordinator that was killed in the
middle of a round runs that round's code again, which asks for the same tasks: those that have a
reply are not sent again, and an exchange that was closed gives exactly what it was closed with.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from flwr.app import Error, Message

from fedtrain.costs import CostMeter, SiteCost, count_payload
from fedtrain.errors import PeerError, RunFailedError
from fedtrain.link.contract import INLINE_BYTES
from fedtrain.link.parcel import pack, unpack
from fedtrain.protocol import LEFT, NO_ANSWER, describe_publicly

from .faults import RunInterrupted
from .flower import OwnGrid
from .outstanding import Outstanding
from .parcels import MappedFile, to_parcel, to_reply
from .sessions import Sessions
from .spool import Spool
from .store import Content, Store, StoredReply, Task, compute_task_id

log = logging.getLogger("fedtrain.server")
_LONGEST_SECONDS = 3600.0  # of an exchange that says nothing
_LOOK_SECONDS = 60.0  # between two lines about sites that are waited for


class LinkGrid(OwnGrid):
    """Sends the messages of one run to its sites.

    Attributes:
        waiting_for: Sites that the run needs before it can begin and that are not there.
        meter: Knows the bytes of each site.
    """

    def __init__(
        self,
        outstanding: Outstanding,
        store: Store,
        spool: Spool,
        sessions: Sessions,
        *,
        run_id: bytes,
        nodes: Mapping[str, int],
        list_members: Callable[[], Collection[str]],
        is_over: Callable[[], bool],
        wait_for_sites: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take a run.

        Args:
            outstanding: Where sites find what they are asked.
            store: Where replies are kept.
            spool: Where large contents are.
            sessions: Which sites are connected.
            run_id: 16 bytes.
            nodes: Node id of each of the run's sites.
            list_members: Names of those who belong to the federation now.
            is_over: Whether the run is to leave its thread; looked at whenever it is woken.
            wait_for_sites: Seconds to wait for all sites before the first exchange.
            clock: Monotonic seconds, the same as of `outstanding`.
        """
        super().__init__()
        self._outstanding = outstanding
        self._store = store
        self._spool = spool
        self._sessions = sessions
        self._run_id = run_id
        self._nodes = dict(nodes)
        self._sites = {node: site for site, node in nodes.items()}
        self._list_members = list_members
        self._is_over = is_over
        self._wait_for_sites = wait_for_sites
        self._clock = clock
        self._round = 0
        self._mapped: MappedFile | None = None
        self.waiting_for: tuple[str, ...] = ()
        self.meter = CostMeter()

    def begin_rounds(self, done: int) -> None:
        """Say that what is asked from now on belongs to round `done` + 1; forget those before."""
        if done:
            self._store.forget_rounds(self._run_id, through=done)
        self._round = done + 1

    def get_node_ids(self) -> Iterable[int]:
        """Return the run's sites, as soon as each is connected or was so before in this run.

        Raises:
            RunFailedError: Some did not come in time.
            RunInterrupted: The run is to leave its thread.
        """
        deadline = self._clock() + self._wait_for_sites
        described = self._store.find_described(self._run_id)
        try:
            while True:
                missing = set(self._nodes) - described - self._sessions.list_online()
                self.waiting_for = tuple(sorted(missing))
                self.check_over()
                if not missing:
                    return list(self._nodes.values())
                left = deadline - self._clock()
                if left <= 0:
                    raise RunFailedError(
                        f"sites {', '.join(self.waiting_for)} were not connected within"
                        f" wait_for_sites = {self._wait_for_sites:g} s; start their agents and"
                        " resume the run, or submit it for fewer sites"
                    )
                log.info("waiting_for_sites missing=%s", ",".join(self.waiting_for))
                self._sessions.wait_for_change(min(left, _LOOK_SECONDS))
        finally:
            self.waiting_for = ()

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        """Ask sites at once; yield their replies in the messages' order, as soon as each can be.

        A reply's arrays lie in its file, mapped when it is yielded. With the next reply its memory
        is given back: what was not written to is read again from the file, what was is lost.

        Args:
            messages: One a site.
            timeout: Seconds from now after which sites that have not answered are dropped.

        Raises:
            CoordinatorError: The disk is full.
            RunInterrupted: The run is to leave its thread.
        """
        seconds = _LONGEST_SECONDS if timeout is None else timeout
        ready = list(messages)
        for message in ready:
            self.identify(message)
            self._note(message, SiteCost(bytes_down=count_payload(message.content)))
        tasks = self._make_tasks(ready, seconds)
        deadline = self._clock() + seconds
        self._outstanding.open_exchange(tasks)
        # After the tasks are open: who is struck off from now on is struck off them, too.
        self._outstanding.answer_for_strangers(self._list_members(), LEFT)
        return self._collect(ready, tasks, deadline)

    def _make_tasks(self, messages: Sequence[Message], seconds: float) -> list[Task]:
        """Return a task for each message; equal contents are packed and written once."""
        contents: dict[tuple[int, str], Content] = {}
        tasks = []
        for message in messages:
            kind = message.metadata.message_type
            key = id(message.content), kind
            if key not in contents:
                contents[key] = self._save(message)
            content, site = contents[key], self._sites[message.metadata.dst_node_id]
            id_ = compute_task_id(self._run_id, site, kind, content.digest)
            tasks.append(Task(id_, self._run_id, self._round, site, content, seconds))
        return tasks

    def _save(self, message: Message) -> Content:
        buffers = pack(to_parcel(message))
        hasher, size = hashlib.sha256(), sum(buffer.nbytes for buffer in buffers)
        for buffer in buffers:
            hasher.update(buffer)
        digest = hasher.digest()
        if size <= INLINE_BYTES:
            return Content(size, digest, b"".join(buffers))
        self._spool.save_content(digest, buffers)
        return Content(size, digest)

    def check_over(self) -> None:
        """Raise RunInterrupted if the run is to leave its thread."""
        if self._is_over():
            raise RunInterrupted

    def _collect(
        self, messages: Sequence[Message], tasks: Sequence[Task], deadline: float
    ) -> Iterator[Message]:
        for message, task in zip(messages, tasks, strict=True):
            reply = self._outstanding.wait_for_reply(task.id, deadline, is_over=self._is_over)
            self.check_over()
            if reply is None:  # the deadline: this closes the exchange for all who are late
                self._outstanding.answer_for([late.id for late in tasks], NO_ANSWER)
                reply = self._store.load_reply(task.id)
            opened = self._open(message, reply)
            if not opened.has_error():
                self._note(message, SiteCost(bytes_up=count_payload(opened.content)))
            yield opened
            if self._mapped is not None:
                self._mapped.release()
                self._mapped = None

    def _note(self, message: Message, cost: SiteCost) -> None:
        self.meter.add(self._sites[message.metadata.dst_node_id], cost)

    def _open(self, message: Message, reply: StoredReply | None) -> Message:
        """Return a reply as Flower's message; an error where it cannot be used."""
        if reply is None:
            return _make_error(message, NO_ANSWER)
        if reply.content is None:
            return _make_error(message, reply.error or NO_ANSWER)
        try:
            return to_reply(unpack(self._map(reply.task, reply.content)), message)
        except PeerError as error:
            log.warning(
                "reply_unusable site=%s reason=%s",
                self._sites[message.metadata.dst_node_id],
                error,
            )
            return _make_error(message, describe_publicly(error))

    def _map(self, task: bytes, content: Content) -> memoryview:
        if content.inline is not None:
            return memoryview(bytearray(content.inline))  # writable, as arrays of replies are
        self._mapped = MappedFile(self._spool.get_reply(task, content.digest))
        return self._mapped.view


def _make_error(message: Message, public: tuple[int, str]) -> Message:
    """Return an error reply in a site's name."""
    code, reason = public
    return Message(Error(code=code, reason=reason), reply_to=message)

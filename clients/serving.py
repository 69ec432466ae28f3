"""One session's work: polls, tasks and replies."""

import logging
import time
from collections.abc import Callable
from typing import Final

from fedtrain.errors import SiteError
from fedtrain.link import link_pb2 as wire
from fedtrain.link.contract import INLINE_BYTES
from fedtrain.link.faults import ContentError, RefusedError

from .agent_folder import AgentFolder
from .agent_status import PAUSED, RECEIVING, SENDING, WAITING, StatusBoard
from .control import Wish, read_wish
from .outbox import Outbox
from .session import InterruptedCall, Pulse, Session
from .stop import Stop
from .transfer import forget_downloads, make_reply, receive, send
from .work import Work

log = logging.getLogger("fedtrain.clients")
# Public codes of refusals that end the session; others are of one task.
_OF_SESSION: Final = ("session", "second-agent")
_PAUSE_SECONDS: Final = 1.0


class Serving:
    """Takes tasks in one session until the agent is to end.

    Args:
        session: Greeted.
        pulse: Beats while a task is worked on.
        outbox: Where replies are kept.
        work: Answers tasks.
        largest: Most bytes of a content.
        folder: Where downloads and the owner's wish are.
        board: Shows what is done.
        stop: Says when to end.
        on_membership: Called with the coordinator's version of the membership.
        on_progress: Called after each poll that was answered.
    """

    def __init__(
        self,
        session: Session,
        *,
        pulse: Pulse,
        outbox: Outbox,
        work: Work,
        largest: int,
        folder: AgentFolder,
        board: StatusBoard,
        stop: Stop,
        on_membership: Callable[[int], None],
        on_progress: Callable[[], None],
    ) -> None:
        self._session = session
        self._pulse = pulse
        self._outbox = outbox
        self._work = work
        self._largest = largest
        self._folder = folder
        self._board = board
        self._stop = stop
        self._on_membership = on_membership
        self._on_progress = on_progress

    def run(self) -> None:
        """Return when the agent is to end and its last reply is handed in, or too late for it.

        Raises:
            FedtrainError: The session is lost, or refused.
            Dropped: The agent stops in the middle of a task.
        """
        reply: wire.Reply | None = None
        while reply is not None or not self._is_ending():
            wish, ending = read_wish(self._folder), self._is_ending()
            self._board.update(state=PAUSED if wish is Wish.PAUSE else WAITING)
            try:
                answer = self._session.poll(
                    reply,
                    waits=not ending,
                    paused=ending or wish is Wish.PAUSE,
                    is_over=self._watch(wish, ending=ending),
                )
            except InterruptedCall:
                if self._stop.is_late:
                    return
                continue
            if reply is not None:  # the coordinator has it
                self._outbox.remove(reply.task)
                reply = None
            self._on_progress()
            self._on_membership(answer.membership_version)
            if not answer.HasField("task"):
                self._work.show_budget()
            if answer.HasField("task") and wish is Wish.RUN and not ending:
                reply = self._do(answer.task)

    def _watch(self, wish: Wish, *, ending: bool) -> Callable[[], bool]:
        """Return what ends a poll: what it was begun with is not so any more."""

        def is_over() -> bool:
            if ending:
                return self._stop.is_late
            return self._is_ending() or read_wish(self._folder) is not wish

        return is_over

    def _is_ending(self) -> bool:
        return self._stop.is_wanted or read_wish(self._folder) is Wish.LEAVE

    def _do(self, task: wire.Task) -> wire.Reply | None:
        """Return the reply to a task; None where the coordinator does not want it any more."""
        self._pulse.beat_for(self._session)
        until = time.monotonic() + task.deadline_ms / 1000
        try:
            return self._reply(task, until)
        except InterruptedCall:  # what was sent of it is kept at both ends
            return None
        except RefusedError as error:
            if error.reason in _OF_SESSION:
                raise
            log.warning("task_is_over reason=%s message=%s", error.reason, error)
            self._outbox.remove(task.id)
            time.sleep(_PAUSE_SECONDS)
            return None
        finally:
            self._pulse.rest()

    def _reply(self, task: wire.Task, until: float) -> wire.Reply:
        stored = self._outbox.find(task.id)
        if stored is None:
            self._work.begin()
            try:
                stored = self._outbox.put(task.id, self._answer(task, until))
            except (SiteError, ContentError) as error:  # the disk is full, or the content is wrong
                log.error("task_failed message=%s", error)
                self._board.report(str(error))
                return make_reply(task.id, self._work.refuse(error))
            forget_downloads(self._folder.incoming)
        if stored.size <= INLINE_BYTES:
            self._count_up(stored.size)
            return make_reply(task.id, [memoryview(stored.path.read_bytes())])
        self._board.update(state=SENDING)
        return send(self._session, stored, until=until, count=self._count_up)

    def _answer(self, task: wire.Task, until: float) -> list[memoryview]:
        if not task.content.inline:
            self._board.update(state=RECEIVING)
        data = receive(
            self._session,
            task,
            self._folder.incoming,
            until=until,
            largest=self._largest,
            count=self._count_down,
        )
        return self._work.answer(task.id, data)

    def _count_down(self, amount: int) -> None:
        self._board.count(bytes_down=amount)

    def _count_up(self, amount: int) -> None:
        self._board.count(bytes_up=amount)

"""What a site does with one task: the app answers it; all that can go wrong is a public code."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from flwr.app import ConfigRecord, Context, Message

from fedtrain.errors import FedtrainError, PeerError
from fedtrain.link.parcel import pack, unpack
from fedtrain.protocol import CONFIG, INTERNAL_ERROR, RUN_ID, SERVER_ROUND, describe_publicly
from fedtrain.training.devices import read_gpu_seconds

from .agent_settings import AgentSettings
from .agent_status import WORKING, StatusBoard, shorten
from .custody import open_custody
from .flower import make_context, make_error_parcel, make_message, make_parcel, set_identity
from .stop import Stop

log = logging.getLogger("fedtrain.clients")
App = Callable[[Message, Context], Message]
_UNKNOWN: Final = "unknown"


class Work:
    """The app of one site.

    Args:
        app: `fedtrain.clients.app:app`.
        site: The site's folder.
        settings: Where its data is.
        stop: Ends a task in the middle when its time is over.
        board: Where the task is shown.
    """

    def __init__(
        self, app: App, site: Path, *, settings: AgentSettings, stop: Stop, board: StatusBoard
    ) -> None:
        self._app = app
        self._site = site
        self._node_config: dict[str, str | int | float] = {
            "site-dir": str(site),
            "data-path": settings.data_path,
            "partition-id": settings.partition_id,
        }
        self._stop = stop
        self._board = board
        self._is_budget_old = True
        self._kind = _UNKNOWN

    def begin(self) -> None:
        """Forget the task before: what goes wrong from now on is of another."""
        self._kind = _UNKNOWN

    def answer(self, task: bytes, data: memoryview) -> list[memoryview]:
        """Return the reply to a task, packed.

        Args:
            task: Identifier of the task.
            data: Its content.

        Raises:
            Dropped: The agent stops, and the task's time is over.

        Guarantees:
            * Whatever the content is and whatever the app raises, there is an answer, and of an
              exception nothing but its public code and text is in it.
        """
        self._is_budget_old = True
        try:
            parcel = unpack(data)
            self._kind = parcel.message_type
            set_identity()
            message = make_message(parcel, task)
            self._show(message)
            with self._stop.in_task(), self._timed():
                reply = make_parcel(self._app(message, make_context(self._node_config)))
            buffers = pack(reply)
            self._board.count(tasks=1, errors=int(reply.error is not None))
            return buffers
        except FedtrainError as error:
            log.warning("task_unusable kind=%s message=%s", error.code, error)
            self._board.report(str(error))
            return self._refuse(*describe_publicly(error))
        except Exception as error:
            log.exception("task_failed")
            self._board.report(f"unexpected {type(error).__name__}; see the log")
            return self._refuse(*INTERNAL_ERROR)

    def show_budget(self) -> None:
        """Show what is left of the lifetime budget, if a task may have changed it."""
        if not self._is_budget_old:
            return
        with suppress(FedtrainError):
            balance = open_custody(self._site).ledger.compute_balance()
            amounts = {"spent": balance.spent, "reserved": balance.reserved, "left": balance.left}
            self._board.update(
                budget={name: amount / balance.total for name, amount in amounts.items()}
            )
            self._is_budget_old = False

    def refuse(self, error: Exception) -> list[memoryview]:
        """Return the public words for what went wrong outside of the app, packed."""
        is_theirs = isinstance(error, PeerError)
        return self._refuse(*(describe_publicly(error) if is_theirs else INTERNAL_ERROR))

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """Count the processor and GPU seconds of a task, for the site's own eyes."""
        cpu, gpu = time.process_time(), read_gpu_seconds()
        try:
            yield
        finally:
            cpu, gpu = time.process_time() - cpu, read_gpu_seconds() - gpu
            self._board.count(cpu_seconds=cpu, gpu_seconds=gpu)
            log.info("task_done cpu_seconds=%.3f gpu_seconds=%.3f", cpu, gpu)

    def _refuse(self, code: int, reason: str) -> list[memoryview]:
        self._board.count(tasks=1, errors=1)
        return pack(make_error_parcel(self._kind, code, reason))

    def _show(self, message: Message) -> None:
        record, kind = message.content.get(CONFIG), shorten(message.metadata.message_type)
        run, round_ = "", 0
        if isinstance(record, ConfigRecord):
            run, number = shorten(str(record.get(RUN_ID, ""))), record.get(SERVER_ROUND, 0)
            round_ = number if isinstance(number, int) else 0
        self._board.update(state=WORKING, run=run, round=round_, task=kind)
        log.info("task kind=%s run=%s round=%d", kind, run, round_)

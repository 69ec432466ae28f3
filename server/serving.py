"""A coordinator's process: from its start to SIGTERM or SIGINT."""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedtrain.journal import add_log, stop_log

from .coordinator import Coordinator
from .folder import LOG_FILE, hold_lock

log = logging.getLogger("fedtrain.coordinator")


def serve(folder: Path, *, metrics_port: int | None = None) -> None:
    """Serve until a signal; then finish the commit under way, and return.

    Args:
        folder: The coordinator's.
        metrics_port: Instead of the settings'.

    Raises:
        FedtrainError: It cannot serve, or not as safely as it must.
    """
    with hold_lock(folder), _logging(folder), _catching_signals() as ended:
        coordinator = Coordinator(folder)
        try:
            coordinator.serve(metrics_port=metrics_port)
            ended.wait()
        finally:
            coordinator.close()


@contextmanager
def _logging(folder: Path) -> Iterator[None]:
    os.close(os.open(folder / LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    handlers = add_log(folder / LOG_FILE)
    logging.getLogger("flwr").setLevel(logging.WARNING)  # fedtrain's own lines say the same
    try:
        yield
    finally:
        for handler in handlers:
            stop_log(handler)


@contextmanager
def _catching_signals() -> Iterator[threading.Event]:
    """Yield an event that SIGTERM and SIGINT set; a second SIGINT interrupts, as ever."""
    ended = threading.Event()

    def end(number: int, _: object) -> None:
        log.info("signal_received signal=%s", signal.Signals(number).name)
        ended.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

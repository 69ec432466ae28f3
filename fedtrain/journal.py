"""Where log lines go: a file, one event a line."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedtrain.errors import RunDirectoryError

_LOGGERS = ("fedtrain", "flwr")
_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


class _LogFile(logging.FileHandler):
    """A log file that a full disk does not turn into a traceback; the next commit reports it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Leave the line out."""

    def close(self) -> None:
        """Close the file, without what could not be written."""
        with suppress(OSError):
            super().close()


def write_log_to(path: Path) -> logging.Handler:
    """Send the log of fedtrain and of Flower to a file, and nowhere else.

    Returns:
        The handler, for `stop_log`.

    Raises:
        RunDirectoryError: The file cannot be written.
    """
    handler = _open_log(path)
    handler.setFormatter(logging.Formatter(_FORMAT))
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(logging.INFO if name == "fedtrain" else logging.WARNING)
    return handler


def add_log(path: Path) -> tuple[logging.Handler, ...]:
    """Send the log of fedtrain to a file and to standard error; Flower's own stays where it is.

    Returns:
        The handlers, each for `stop_log`.
    """
    handlers = (_open_log(path), logging.StreamHandler())
    logger = logging.getLogger("fedtrain")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for handler in handlers:
        handler.setFormatter(logging.Formatter(_FORMAT))
        logger.addHandler(handler)
    return handlers


@contextmanager
def logging_beside(path: Path, logger: str) -> Iterator[None]:
    """Send what one logger says to a file, too, for a while; beside where it goes already."""
    handler = _open_log(path)
    handler.setFormatter(logging.Formatter(_FORMAT))
    logging.getLogger(logger).addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger(logger).removeHandler(handler)
        handler.close()


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Send the log of fedtrain and of Flower to a file for a while; see `write_log_to`."""
    kept = {name: logging.getLogger(name).handlers for name in _LOGGERS}
    handler = write_log_to(path)
    try:
        yield
    finally:
        stop_log(handler)
        for name, handlers in kept.items():
            logging.getLogger(name).handlers = handlers


def stop_log(handler: logging.Handler) -> None:
    """Undo `write_log_to`, or `add_log` for one handler."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.removeHandler(handler)
        logger.propagate = True
    handler.close()


def _open_log(path: Path) -> logging.Handler:
    try:
        return _LogFile(path, encoding="utf-8")
    except OSError as error:
        raise RunDirectoryError(f"{path}: cannot be written ({error.strerror})") from error

"""Where log lines go: a file, one event a line."""

import logging
from pathlib import Path

_LOGGERS = ("fedtrain", "flwr")
_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


def write_log_to(path: Path) -> logging.Handler:
    """Send the log of fedtrain and of Flower to a file, and nowhere else.

    Returns:
        The handler, for `stop_log`.
    """
    handler = logging.FileHandler(path, encoding="utf-8")
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
    handlers = (logging.FileHandler(path, encoding="utf-8"), logging.StreamHandler())
    logger = logging.getLogger("fedtrain")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for handler in handlers:
        handler.setFormatter(logging.Formatter(_FORMAT))
        logger.addHandler(handler)
    return handlers


def stop_log(handler: logging.Handler) -> None:
    """Undo `write_log_to`, or `add_log` for one handler."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.removeHandler(handler)
        logger.propagate = True
    handler.close()

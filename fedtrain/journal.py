"""Where log lines go: a file, one event a line."""

import logging
from pathlib import Path

_LOGGERS = ("fedtrain", "flwr")


def write_log_to(path: Path) -> logging.Handler:
    """Send the log of fedtrain and of Flower to a file, and nowhere else.

    Returns:
        The handler, for `stop_log`.
    """
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(logging.INFO if name == "fedtrain" else logging.WARNING)
    return handler


def stop_log(handler: logging.Handler) -> None:
    """Undo `write_log_to`."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.removeHandler(handler)
        logger.propagate = True
    handler.close()

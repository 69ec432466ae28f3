"""The site's own log: a file of bounded size, and standard error for whoever watches services."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Final

from fedtrain.durable import open_private
from fedtrain.errors import SiteError

LARGEST_FILE: Final = 8 * 2**20
FILES: Final = 5
_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s %(message)s"
_LEVELS: Final = {"fedtrain": logging.INFO, "flwr": logging.WARNING}


class _PrivateFile(RotatingFileHandler):
    """A log for its owner's eyes, which a full disk does not turn into a traceback."""

    def _open(self) -> TextIOWrapper:
        return TextIOWrapper(open_private(Path(self.baseFilename), os.O_APPEND), encoding="utf-8")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Leave the line out."""


@contextmanager
def logging_at_site(path: Path) -> Iterator[None]:
    """Send the log of fedtrain and of Flower to a file and to standard error for a while.

    Raises:
        SiteError: The file cannot be written.
    """
    try:
        file = _PrivateFile(path, maxBytes=LARGEST_FILE, backupCount=FILES - 1, encoding="utf-8")
    except OSError as error:
        raise SiteError(
            f"{path} cannot be written ({error.strerror}); let this user write there"
        ) from error
    handlers: list[logging.Handler] = [file, logging.StreamHandler()]
    kept: dict[str, tuple[Any, ...]] = {}
    for name, level in _LEVELS.items():
        logger = logging.getLogger(name)
        kept[name] = (logger.handlers, logger.propagate, logger.level)
        logger.handlers, logger.propagate = list(handlers), False
        logger.setLevel(level)
    for handler in handlers:
        handler.setFormatter(logging.Formatter(_FORMAT))
    try:
        yield
    finally:
        for name, (before, propagate, level) in kept.items():
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate = before, propagate
            logger.setLevel(level)
        file.close()

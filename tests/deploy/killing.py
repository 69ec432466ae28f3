"""Kills the process that it is in, at each place of its work once.

A place is a step of a write to disk: before or after a transaction of the database, before a file
is opened for writing, renamed, cut or removed; together with how far the work had come. The next
process gets as far as the next place that nobody has named yet, so that all processes together
die before and after everything that any of them writes.
"""

import os
import re
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable
from pathlib import Path

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
# What says how things are, and is not read again to go on.
_IGNORED = re.compile(r"(log\.txt|lock|audit\.jsonl|status\.\w+|link\.db.*)$")
_RANDOM = re.compile(r"[0-9a-f]{8,}|(?<=\.)tmp\w+|\d+")
_TASK = re.compile(r" task kind=(\S+)")
# Happens at each start or each reconnection, whatever the work.
_AT_START = ("recover", "nodes", "session", "begin", "withdraw")


class Knife:
    """Watches a process; a place that is new is written down, and then the process is killed."""

    def __init__(
        self, marks: Path, folder: Path, find_position: Callable[[], str], *, places: str = ""
    ) -> None:
        """Take the file of places, the folder that is watched, and which places count."""
        marks.touch()
        self._places = re.compile(places)
        self._seen = set(marks.read_text().splitlines())
        self._descriptor = os.open(marks, os.O_WRONLY | os.O_APPEND)
        self._folder = f"{folder}/"
        self._find_position = find_position
        self._busy = threading.local()

    def on_step(self, name: str) -> None:
        """Die at a step of the database."""
        at_start = name.rpartition("-")[0] in _AT_START
        self._die(name if at_start else f"{name} {self._find_position()}")

    def watch_files(self) -> None:
        """Die at what is done to files, from now on."""
        sys.addaudithook(self._on_event)

    def _on_event(self, event: str, args: tuple) -> None:
        if event not in ("os.rename", "os.remove", "os.truncate", "open"):
            return
        path = str(args[1] if event == "os.rename" else args[0])
        is_read = event == "open" and not (args[2] or 0) & _WRITES
        if is_read or not path.startswith(self._folder) or _IGNORED.search(path):
            return
        if getattr(self._busy, "is_set", False):
            return
        self._busy.is_set = True
        try:
            name = _RANDOM.sub("#", path.removeprefix(self._folder))
            # Of files the task or the round counts; of transactions each stage, too.
            self._die(f"{event} {name} {self._find_position().partition('/')[0]}")
        finally:
            self._busy.is_set = False

    def _die(self, place: str) -> None:
        if place not in self._seen and self._places.search(place):
            os.write(self._descriptor, f"{place}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)


def find_round(folder: Path) -> Callable[[], str]:
    """Return what says how far a coordinator's run is: its round, and the tasks on disk."""
    query = "SELECT (SELECT max(round) FROM runs), (SELECT count(*) FROM tasks)"

    def find() -> str:
        try:
            connection = sqlite3.connect(f"file:{folder / 'link.db'}?mode=ro", uri=True)
            try:
                return "{}/{}".format(*connection.execute(query).fetchone())
            finally:
                connection.close()
        except sqlite3.Error:
            return "none"

    return find


def find_task(folder: Path) -> Callable[[], str]:
    """Return what says which task an agent had last, by its log: the status is a moment late."""

    def find() -> str:
        try:
            kinds = _TASK.findall((folder / "agent" / "log.txt").read_text())
        except OSError:
            kinds = []
        return kinds[-1] if kinds else "none"

    return find

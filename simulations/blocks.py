"""Arrays handed from one process to another through shared memory.

A block is an unlinked temporary file that the writer maps and whose descriptor it sends to the
reader: it is gone when both processes are, however they end.
"""

import mmap
import os
import tempfile
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from typing import Any, Final

import numpy as np
from flwr.app import ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

from .flower import hold, view

_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - files in it are unlinked at once
_ALIGNMENT: Final = 64


@dataclass(frozen=True)
class Place:
    """Where one array lies in a block."""

    record: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class Payload:
    """A message's content without the bytes of its arrays.

    Attributes:
        places: Where its arrays are.
        records: Its other records.
        grown: Whether the block is a new one, whose descriptor follows.
    """

    places: tuple[Place, ...]
    records: dict[str, ConfigRecord | MetricRecord]
    grown: bool


class Block:
    """The writing end."""

    def __init__(self) -> None:
        self._descriptor = -1
        self._map: mmap.mmap | None = None

    def write(self, content: RecordDict) -> Payload:
        """Copy a content's arrays in; the reader must be done with what was there before."""
        places, size = _lay_out(content)
        grown = self._map is None or len(self._map) < size
        if grown:
            self._grow(size)
        for place in places:
            target: NDArray[Any] = np.ndarray(
                place.shape, place.dtype, buffer=self._map, offset=place.offset
            )
            target[...] = view(content.array_records[place.record][place.name])
        others: dict[str, ConfigRecord | MetricRecord] = {}
        others.update(content.config_records)
        others.update(content.metric_records)
        return Payload(places, others, grown)

    def send(self, connection: Connection, process_id: int) -> None:
        """Send the descriptor; must follow each `Payload` that has `grown`."""
        send_handle(connection, self._descriptor, process_id)
        os.close(self._descriptor)

    def _grow(self, size: int) -> None:
        folder = _MEMORY if _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) else None
        with tempfile.TemporaryFile(dir=folder) as file:
            os.ftruncate(file.fileno(), max(size, 1))
            self._map = mmap.mmap(file.fileno(), max(size, 1))
            self._descriptor = os.dup(file.fileno())


class Mirror:
    """The reading end."""

    def __init__(self) -> None:
        self._map: mmap.mmap | None = None

    def receive(self, connection: Connection) -> None:
        """Receive a new block's descriptor."""
        descriptor = recv_handle(connection)
        try:
            self._map = mmap.mmap(descriptor, os.fstat(descriptor).st_size)
        finally:
            os.close(descriptor)

    def read(self, payload: Payload) -> RecordDict:
        """Return the content; its arrays are copies, so that the block may be written again."""
        arrays: dict[str, dict[str, NDArray[Any]]] = {}
        for place in payload.places:
            source: NDArray[Any] = np.ndarray(
                place.shape, place.dtype, buffer=self._map, offset=place.offset
            )
            arrays.setdefault(place.record, {})[place.name] = source.copy()
        content = RecordDict({name: hold(held) for name, held in arrays.items()})
        for name, record in payload.records.items():
            content[name] = record
        return content


def _lay_out(content: RecordDict) -> tuple[tuple[Place, ...], int]:
    """Return a place for each array, and the bytes that they take together."""
    places, offset = [], 0
    for record, arrays in content.array_records.items():
        for name, array in arrays.items():
            places.append(Place(record, name, array.dtype, tuple(array.shape), offset))
            size = int(np.prod(array.shape, dtype=np.int64)) * np.dtype(array.dtype).itemsize
            offset += -(-size // _ALIGNMENT) * _ALIGNMENT
    return tuple(places), offset

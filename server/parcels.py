"""Flower's messages as parcels of the link, and back."""

import mmap
import weakref
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from fedtrain.errors import PeerError
from fedtrain.link.parcel import Parcel

from .flower import hold

_MOST_REASON = 200  # characters of what a site says in public


def to_parcel(message: Message) -> Parcel:
    """Return a message's content as a parcel; arrays are not copied."""
    values: dict[str, Any] = {}
    metrics: set[str] = set()
    arrays: dict[str, dict[str, NDArray[Any]]] = {}
    for name, record in message.content.items():
        if isinstance(record, ArrayRecord):
            arrays[name] = {key: array.numpy() for key, array in record.items()}
        else:
            values[name] = dict(record)
            if isinstance(record, MetricRecord):
                metrics.add(name)
    return Parcel(message.metadata.message_type, values, frozenset(metrics), arrays, None)


def to_reply(parcel: Parcel, request: Message) -> Message:
    """Return a parcel that a site sent as its reply to a request.

    Raises:
        PeerError: It is the reply to a message of another type, or holds what no record can.
    """
    if parcel.error is not None:
        code, reason = parcel.error
        return Message(
            Error(code=code, reason=" ".join(reason.split())[:_MOST_REASON]), reply_to=request
        )
    if parcel.message_type != request.metadata.message_type:
        raise PeerError(
            f"the reply is to {parcel.message_type[:80]!r}, the request was"
            f" {request.metadata.message_type!r}"
        )
    content = RecordDict()
    try:
        for name, values in parcel.values.items():
            kind = MetricRecord if name in parcel.metrics else ConfigRecord
            content[name] = kind(dict(values))  # type: ignore[arg-type]
        for name, arrays in parcel.arrays.items():
            content[name] = hold(arrays)
    except (TypeError, ValueError) as error:
        raise PeerError("the reply holds a value that no record can") from error
    return Message(content, reply_to=request)


class MappedFile:
    """A file's bytes as memory that the file backs; it goes with its last view.

    Writes to it stay in memory: the file is never changed.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self.view = memoryview(mapped)
        self._mapped = weakref.ref(mapped)

    def release(self) -> None:
        """Give the memory back; whoever still reads the view gets the file's bytes again."""
        mapped = self._mapped()
        if mapped is not None:
            mapped.madvise(mmap.MADV_DONTNEED)

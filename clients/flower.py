"""The one module of the site that knows Flower's records, messages and internals.

An agent turns parcels of the link into messages of Flower's API and back, so that the app that it
runs is the one that every grid runs. Outside of Flower's own processes a Message needs a task
identity and an id, which are not public: a contract test runs them.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.app.metadata import Metadata
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray

from fedtrain.errors import PeerError
from fedtrain.link.parcel import Parcel
from fedtrain.params import Vector
from fedtrain.protocol import ARRAYS, CONTROL, PARAMETERS

_COORDINATOR_NODE: Final = 1
_OWN_NODE: Final = 2
_RUN: Final = 1


class HeldArray(Array):
    """An Array that is serialised only if somebody asks for its bytes.

    Within one process `numpy()` hands over the memory itself; whoever takes it does not write.
    """

    __qualname__ = "Array"  # on the wire an object carries its class's name, and Flower knows this

    def __init__(self, array: NDArray[Any]) -> None:
        self.dtype = str(array.dtype)
        self.shape = tuple(array.shape)
        self.stype = "numpy.ndarray"
        self._held = array

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """The array in Flower's serialised form."""
        if "_data" not in self.__dict__:
            self.__dict__["_data"] = Array.from_numpy_ndarray(self._held).data
        data: bytes = self.__dict__["_data"]
        return data

    def numpy(self) -> NDArray[Any]:
        """Return the held array."""
        return self._held


def read_parameters(message: Message) -> Vector:
    """Return the flat vector `(d,)` of a message.

    Raises:
        PeerError: It is missing or not one float32 vector.
    """
    record = message.content.get(ARRAYS)
    array = record.get(PARAMETERS) if isinstance(record, ArrayRecord) else None
    if array is None or array.dtype != "float32" or len(array.shape) != 1:
        raise PeerError(
            f"a train or evaluate message needs one float32 vector '{PARAMETERS}' in '{ARRAYS}'"
        )
    vector: Vector = array.numpy()
    return vector


def read_start(message: Message, strategy: str) -> Vector:
    """Return what a round of training starts from.

    Args:
        message: A train message.
        strategy: Of the config.

    Returns:
        The global model, `(d,)`; with SCAFFOLD's control variate below it, `(2, d)`.

    Raises:
        PeerError: One of the two is missing or does not fit.
    """
    vector = read_parameters(message)
    if strategy != "SCAFFOLD":
        return vector
    record = message.content.get(ARRAYS)
    array = record.get(CONTROL) if isinstance(record, ArrayRecord) else None
    if array is None or array.dtype != "float32" or tuple(array.shape) != vector.shape:
        raise PeerError(f"a train message of SCAFFOLD needs '{CONTROL}' like '{PARAMETERS}'")
    return np.stack([vector, array.numpy()])


def to_array_record(arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    """Return arrays as a record of a message."""
    record = ArrayRecord()
    for name, array in arrays.items():
        record[name] = HeldArray(array)  # given to the constructor, they would be serialised
    return record


def make_error_reply(message: Message, code: int, reason: str) -> Message:
    """Return an error reply that carries a public code and text."""
    return Message(Error(code=code, reason=reason), reply_to=message)


def set_identity() -> None:
    """Say that this process speaks for a node; needed before a Message is made."""
    TaskIdentity.run_id = _RUN
    TaskIdentity.task_id = _RUN
    TaskIdentity.node_id = _OWN_NODE


def make_context(node_config: Mapping[str, str | int | float]) -> Context:
    """Return the context that the site's app runs in."""
    return Context(
        run_id=_RUN,
        node_id=_OWN_NODE,
        node_config=dict(node_config),
        state=RecordDict(),
        run_config={},
    )


def make_message(parcel: Parcel, task: bytes) -> Message:
    """Return a task as a message to the site's app; arrays are the parcel's own memory.

    Args:
        parcel: What the coordinator sent.
        task: Identifier of the task, 32 bytes.

    Raises:
        PeerError: The parcel is an error, or a value is not one that records hold.
    """
    if parcel.error is not None:
        raise PeerError("a task holds an error instead of records")
    metadata = Metadata(
        run_id=_RUN,
        message_id=task.hex(),
        src_node_id=_COORDINATOR_NODE,
        dst_node_id=_OWN_NODE,
        reply_to_message_id="",
        group_id="",
        created_at=0.0,
        ttl=float("inf"),
        message_type=parcel.message_type,
    )
    content = RecordDict()
    try:
        for name, values in parcel.values.items():
            kind = MetricRecord if name in parcel.metrics else ConfigRecord
            content[name] = kind(dict(values))  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise PeerError(f"a record of the task holds what no record can: {error}") from error
    for name, arrays in parcel.arrays.items():
        content[name] = to_array_record(arrays)
    return Message(metadata=metadata, content=content)  # type: ignore[call-overload,no-any-return]


def make_parcel(message: Message) -> Parcel:
    """Return a reply as a parcel; arrays that are held are not copied."""
    if message.has_error():
        error = message.error
        return make_error_parcel(message.metadata.message_type, error.code, error.reason or "")
    values: dict[str, Any] = {}
    arrays: dict[str, Mapping[str, NDArray[Any]]] = {}
    metrics = set()
    for name, record in message.content.items():
        if isinstance(record, ArrayRecord):
            arrays[name] = {key: array.numpy() for key, array in record.items()}
            continue
        values[name] = dict(record)
        if isinstance(record, MetricRecord):
            metrics.add(name)
    kind = message.metadata.message_type
    return Parcel(kind, values=values, metrics=frozenset(metrics), arrays=arrays, error=None)


def make_error_parcel(message_type: str, code: int, reason: str) -> Parcel:
    """Return a public error as a parcel."""
    return Parcel(message_type, values={}, metrics=frozenset(), arrays={}, error=(code, reason))

"""The one module of the simulation that touches Flower's internals.

Outside of Flower's own processes a Message needs a task identity and an id: `TaskIdentity` and
`Metadata._message_id` are not public. A contract test runs them, so that an upgrade of Flower
breaks here, loudly.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Error, Message, RecordDict
from flwr.app.metadata import Metadata
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray

COORDINATOR_NODE_ID = 1
RUN_ID = 1


def set_identity(node_id: int = COORDINATOR_NODE_ID) -> None:
    """Say which node this process speaks for; needed before a Message is made."""
    TaskIdentity.run_id = RUN_ID
    TaskIdentity.task_id = RUN_ID
    TaskIdentity.node_id = node_id


def set_message_id(message: Message, message_id: str) -> None:
    """Give a message the id that a SuperLink would give it."""
    message.metadata.__dict__["_message_id"] = message_id


def make_context(
    node_id: int, node_config: Mapping[str, Any], run_config: Mapping[str, Any]
) -> Context:
    """Return the context that a node's app runs in."""
    return Context(
        run_id=RUN_ID,
        node_id=node_id,
        node_config=dict(node_config),
        state=RecordDict(),
        run_config=dict(run_config),
    )


def make_metadata(
    *, message_id: str, src_node_id: int, dst_node_id: int, reply_to: str, message_type: str
) -> Metadata:
    """Return the metadata of a message that crosses from one process to another."""
    return Metadata(
        run_id=RUN_ID,
        message_id=message_id,
        src_node_id=src_node_id,
        dst_node_id=dst_node_id,
        reply_to_message_id=reply_to,
        group_id="",
        created_at=0.0,
        ttl=float("inf"),
        message_type=message_type,
    )


def make_message(metadata: Metadata, content: RecordDict | None, error: Error | None) -> Message:
    """Return a message with given metadata."""
    return Message(metadata=metadata, content=content, error=error)  # type: ignore[call-overload,no-any-return]


class HeldArray(Array):
    """An Array that holds numpy memory and is serialised only if somebody asks for its bytes.

    `numpy()` returns the held array itself, so that a reply of a worker process is copied once,
    out of shared memory, and not four times.
    """

    def __init__(self, array: NDArray[Any]) -> None:
        self.dtype = str(array.dtype)
        self.shape = tuple(array.shape)
        self.stype = "numpy.ndarray"
        self._held = array

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """The array in Flower's serialised form."""
        return Array.from_numpy_ndarray(self._held).data

    def numpy(self) -> NDArray[Any]:
        """Return the held array."""
        return self._held


def hold(arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    """Return a record of arrays that are not serialised."""
    record = ArrayRecord()
    for name, array in arrays.items():
        record[name] = HeldArray(array)
    return record


def view(array: Array) -> NDArray[Any]:
    """Return an Array's values without a copy where its bytes allow it; not writable."""
    if type(array).numpy is not Array.numpy:  # held, here or by an app
        return array.numpy()
    size = int(np.prod(array.shape, dtype=np.int64)) * np.dtype(array.dtype).itemsize
    # Flower serialises with numpy.save: a header, then the values in C order at the end.
    start = len(array.data) - size
    if (
        not array.data.startswith(b"\x93NUMPY")
        or b"'fortran_order': False" not in array.data[:start]
    ):
        return array.numpy()
    return np.frombuffer(array.data, array.dtype, offset=start).reshape(array.shape)

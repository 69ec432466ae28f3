"""The one module of the site that knows how Flower stores arrays."""

from collections.abc import Mapping
from typing import Any

from flwr.app import Array, ArrayRecord, Error, Message
from numpy.typing import NDArray

from fedtrain.errors import PeerError
from fedtrain.params import Vector
from fedtrain.protocol import ARRAYS, PARAMETERS


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


def to_array_record(arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    """Return arrays as a record of a message."""
    record = ArrayRecord()
    for name, array in arrays.items():
        record[name] = HeldArray(array)  # given to the constructor, they would be serialised
    return record


def make_error_reply(message: Message, code: int, reason: str) -> Message:
    """Return an error reply that carries a public code and text."""
    return Message(Error(code=code, reason=reason), reply_to=message)

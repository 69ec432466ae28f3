"""The one module of the coordinator that knows Flower's arrays and grids."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flwr.app import Array, ArrayRecord, Error, Message
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray

from fedtrain.errors import PeerError
from fedtrain.params import Vector
from fedtrain.protocol import NO_ANSWER, PARAMETERS

COORDINATOR_NODE_ID = 1


class OwnGrid(Grid):
    """What a grid outside of Flower's own processes needs, but for its nodes and their replies.

    There nobody says which process a Message is made in, and nobody gives it an id.
    """

    def __init__(self) -> None:
        TaskIdentity.run_id = TaskIdentity.task_id = TaskIdentity.node_id = COORDINATOR_NODE_ID
        self._run: Run | None = None
        self._sent = 0
        self._waiting: dict[str, Message] = {}

    def set_run(self, run: Run) -> None:
        """Set the run."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run, if one was set."""
        if self._run is None:
            raise RuntimeError("no run is set")
        return self._run

    def create_message(self, *args: object, **kwargs: object) -> Message:
        """Refuse: deprecated in Flower."""
        raise NotImplementedError("construct a flwr.app.Message instead")

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Keep messages until their replies are pulled; return their ids."""
        ids = []
        for message in messages:
            self.identify(message)
            self._waiting[message.metadata.message_id] = message
            ids.append(message.metadata.message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Send pushed messages and return their replies."""
        messages = [self._waiting.pop(i) for i in message_ids if i in self._waiting]
        return list(self.send_and_receive(messages))

    def identify(self, message: Message) -> None:
        """Give a message the id that a SuperLink would give it."""
        self._sent += 1
        message.metadata.__dict__["_message_id"] = str(self._sent)


class CohortGrid(Grid):
    """A grid that shows a strategy this round's cohort and nothing else.

    Flower's strategies draw their sample with the global random generator and wait without end
    for a number of nodes; shown the cohort alone, they take all of it.
    """

    def __init__(self, grid: Grid, node_ids: Sequence[int]) -> None:
        self._grid = grid
        self._node_ids = list(node_ids)

    def get_node_ids(self) -> Iterable[int]:
        """Return the cohort."""
        return self._node_ids

    def set_run(self, run: Run) -> None:
        """Pass on."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """Pass on."""
        return self._grid.run

    def create_message(self, *args: object, **kwargs: object) -> Message:
        """Refuse: deprecated in Flower, and no strategy calls it."""
        raise NotImplementedError("construct a flwr.app.Message instead")

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Pass on."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pass on."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Pass on."""
        return self._grid.send_and_receive(messages, timeout=timeout)


def exchange(grid: Grid, messages: Sequence[Message], *, timeout: float) -> Iterable[Message]:
    """Send messages and return one reply to each, in the messages' order.

    A SuperLink and the Ray engine return a list: in the order of arrival, which must not decide how
    a sum is rounded, without those that were too late, and with errors in their own name for nodes
    that they lost. An iterator is passed on as it is: the in-process grid has done all this, and
    nothing needs to be held.
    """
    replies = grid.send_and_receive(messages, timeout=timeout)
    if not isinstance(replies, Sequence):
        return replies
    answers: dict[str, Message] = {}
    for reply in replies:
        answers.setdefault(reply.metadata.reply_to_message_id, reply)
    return [_attribute(answers.get(m.metadata.message_id), m) for m in messages]


def _attribute(reply: Message | None, message: Message) -> Message:
    """Return a reply as the asked node's own, an error where there is none."""
    if reply is None:
        code, reason = NO_ANSWER
        return Message(Error(code=code, reason=reason), reply_to=message)
    if reply.has_error() and reply.metadata.src_node_id != message.metadata.dst_node_id:
        return Message(reply.error, reply_to=message)
    return reply


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


def hold(arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    """Return a record of arrays that are serialised only if they leave the process."""
    record = ArrayRecord()
    for name, array in arrays.items():
        record[name] = HeldArray(array)  # given to the constructor, it would be serialised
    return record


def to_array_record(vector: Vector) -> ArrayRecord:
    """Return the global model `(d,)` as a record of a message."""
    return hold({PARAMETERS: vector})


def read_array(record: ArrayRecord | None, name: str, *, dtype: str) -> NDArray[Any]:
    """Return one vector of a reply.

    Raises:
        PeerError: It is missing or of another type.
    """
    array = record.get(name) if record is not None else None
    if array is None or array.dtype != dtype or len(array.shape) != 1:
        raise PeerError(f"a reply needs one {dtype} vector '{name}'")
    vector: NDArray[Any] = array.numpy()
    return vector

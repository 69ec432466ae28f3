from collections.abc import Iterator

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.serverapp import Grid

from clients.flower import to_array_record as to_site_record
from fedtrain.protocol import NO_ANSWER, PARAMETERS
from server.flower import exchange, to_array_record
from simulations.flower import set_identity, set_message_id

NODES = (11, 12, 13)


class RecordedGrid(Grid):
    """Answers with what a function makes of the messages."""

    def __init__(self, answer):
        self._answer = answer

    def send_and_receive(self, messages, *, timeout=None):
        for i, message in enumerate(messages):
            set_message_id(message, f"m{i}")
        return self._answer(list(messages))

    def _refuse(self, *args, **kwargs):
        raise NotImplementedError

    set_run = create_message = get_node_ids = push_messages = pull_messages = _refuse
    run = property(_refuse)


def reply_to(message):
    return Message(RecordDict({"r": ConfigRecord()}), reply_to=message)


@pytest.fixture
def messages():
    set_identity()
    return [
        Message(RecordDict(), dst_node_id=node_id, message_type="query.describe")
        for node_id in NODES
    ]


def list_senders(replies):
    return [reply.metadata.src_node_id for reply in replies]


def test_replies_come_in_the_order_of_the_messages(messages):
    grid = RecordedGrid(lambda sent: [reply_to(sent[i]) for i in (2, 0, 1)])
    assert list_senders(exchange(grid, messages, timeout=1.0)) == list(NODES)


def test_error_in_the_superlinks_name_is_put_in_the_lost_nodes(messages):
    def answer(sent):
        error = Message(Error(code=3, reason="node unavailable"), reply_to=sent[1])
        error.metadata.__dict__["_src_node_id"] = 1
        return [error, reply_to(sent[0]), reply_to(sent[2])]

    replies = list(exchange(RecordedGrid(answer), messages, timeout=1.0))
    assert list_senders(replies) == list(NODES)
    assert [reply.has_error() for reply in replies] == [False, True, False]
    assert replies[1].error.reason == "node unavailable"


def test_missing_replies_become_errors(messages):
    grid = RecordedGrid(lambda sent: [reply_to(sent[1])])
    replies = list(exchange(grid, messages, timeout=1.0))
    assert list_senders(replies) == list(NODES)
    assert [r.error.code for r in replies if r.has_error()] == [NO_ANSWER[0]] * 2


def test_iterator_is_passed_on_unconsumed(messages):
    consumed = []

    def answer(sent) -> Iterator[Message]:
        for message in sent:
            consumed.append(message)
            yield reply_to(message)

    replies = exchange(RecordedGrid(answer), messages, timeout=1.0)
    assert not consumed
    next(iter(replies))
    assert len(consumed) == 1


@pytest.mark.parametrize("size", [0, 5, 3_000_000])
def test_array_record_is_flowers_own_on_the_wire(size):
    vector = np.arange(size, dtype=np.float32)
    plain = ArrayRecord({PARAMETERS: Array(vector)})
    assert to_array_record(vector).object_id == plain.object_id
    assert to_site_record({PARAMETERS: vector}).object_id == plain.object_id

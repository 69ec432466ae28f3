"""What the simulation's adapter relies on in Flower; an upgrade that changes it fails here."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from simulations.flower import (
    RUN_ID,
    hold,
    make_context,
    make_message,
    make_metadata,
    set_identity,
    set_message_id,
)
from simulations.grid import InProcessGrid


def make_request() -> Message:
    set_identity()
    message = Message(
        RecordDict({"c": ConfigRecord({"a": 1})}), dst_node_id=7, message_type="train"
    )
    set_message_id(message, "m1")
    return message


def test_identity_is_what_messages_are_sent_from():
    message = make_request()
    assert (TaskIdentity.run_id, TaskIdentity.node_id) == (RUN_ID, 1)
    assert (message.metadata.run_id, message.metadata.src_node_id) == (RUN_ID, 1)


def test_message_id_is_what_a_reply_refers_to():
    reply = Message(RecordDict(), reply_to=make_request())
    assert reply.metadata.reply_to_message_id == "m1"
    assert (reply.metadata.src_node_id, reply.metadata.dst_node_id) == (7, 1)


def test_message_made_from_metadata_can_be_answered():
    metadata = make_metadata(
        message_id="m2", src_node_id=1, dst_node_id=9, reply_to="", message_type="train"
    )
    message = make_message(metadata, RecordDict(), None)
    reply = Message(Error(code=3, reason="why"), reply_to=message)
    assert reply.metadata.src_node_id == 9
    assert reply.error.reason == "why"


def test_context_carries_node_config_and_state():
    context = make_context(5, {"partition-id": 3}, {"scenario": "digits"})
    assert context.node_config["partition-id"] == 3
    assert context.run_config["scenario"] == "digits"
    assert len(context.state) == 0


def test_held_arrays_are_accepted_by_records():
    record = hold({"parameters": np.arange(3, dtype=np.float32)})
    assert isinstance(RecordDict({"arrays": record}).array_records["arrays"], ArrayRecord)
    assert isinstance(record["parameters"], Array)
    copied = ArrayRecord(dict(record))
    assert copied["parameters"].numpy().tolist() == [0, 1, 2]


def test_grid_has_every_method_that_flower_s_has():
    abstract = set(Grid.__abstractmethods__)
    assert abstract <= set(dir(InProcessGrid))
    with InProcessGrid("clients.app:app", sites=2) as grid, pytest.raises(NotImplementedError):
        grid.create_message()

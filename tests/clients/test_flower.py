"""The adapter between the link and Flower; an upgrade of Flower that breaks it fails here."""

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from clients.flower import (
    make_context,
    make_error_parcel,
    make_error_reply,
    make_message,
    make_parcel,
    set_identity,
    to_array_record,
)
from fedtrain.errors import PeerError
from fedtrain.link.parcel import Parcel, pack, unpack

TASK = bytes(range(32))
MODEL = np.arange(5, dtype=np.float32)
PARCEL = Parcel(
    "train",
    values={"config": {"round": 3, "text": "x", "blob": b"\0\1"}, "metrics": {"loss": 0.5}},
    metrics=frozenset({"metrics"}),
    arrays={"arrays": {"model": MODEL}},
    error=None,
)
app = ClientApp()


@app.train()
def double(message: Message, context) -> Message:
    set_identity()
    model = message.content["arrays"]["model"].numpy()
    content = RecordDict(
        {
            "arrays": to_array_record({"model": model * 2}),
            "config": ConfigRecord({"site": str(context.node_config["name"])}),
            "metrics": MetricRecord({"loss": message.content["metrics"]["loss"] / 2}),
        }
    )
    return Message(content, reply_to=message)


@app.evaluate()
def refuse(message: Message, context) -> Message:
    return make_error_reply(message, 104, "no result")


def ask(parcel: Parcel) -> Parcel:
    set_identity()
    return make_parcel(app(make_message(parcel, TASK), make_context({"name": "berlin"})))


def test_task_reaches_the_app_and_its_reply_comes_back():
    reply = ask(PARCEL)
    np.testing.assert_array_equal(reply.arrays["arrays"]["model"], MODEL * 2)
    assert reply.values == {"config": {"site": "berlin"}, "metrics": {"loss": 0.25}}
    assert (reply.message_type, reply.metrics, reply.error) == ("train", {"metrics"}, None)


def test_error_of_the_app_is_a_code_and_its_public_text():
    reply = ask(Parcel("evaluate"))
    assert reply == make_error_parcel("evaluate", 104, "no result")


def test_reply_crosses_the_link():
    reply = ask(PARCEL)
    again = unpack(b"".join(pack(reply)))
    assert again.values == reply.values
    np.testing.assert_array_equal(again.arrays["arrays"]["model"], MODEL * 2)


def test_arrays_of_a_task_are_not_copied():
    record = make_message(PARCEL, TASK).content["arrays"]
    assert isinstance(record, ArrayRecord)
    assert np.shares_memory(record["model"].numpy(), MODEL)


def test_arrays_of_a_reply_are_not_copied():
    set_identity()
    message = make_message(PARCEL, TASK)
    reply = Message(RecordDict({"arrays": to_array_record({"m": MODEL})}), reply_to=message)
    assert np.shares_memory(make_parcel(reply).arrays["arrays"]["m"], MODEL)


@pytest.mark.parametrize(
    "parcel",
    [
        pytest.param(make_error_parcel("train", 1, "x"), id="error instead of a task"),
        pytest.param(Parcel("train", {"m": {"x": "text"}}, frozenset({"m"})), id="text as metric"),
        pytest.param(Parcel("train", {"c": {"x": [1, 0.5]}}), id="mixed list"),
    ],
)
def test_task_that_no_record_can_hold_is_refused(parcel):
    with pytest.raises(PeerError):
        make_message(parcel, TASK)

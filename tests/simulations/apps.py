"""ClientApps for tests of the grid; loaded by reference, also in worker processes."""

import os
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def double(message: Message, context: Context) -> Message:
    """Return the vector times the site's number; count the calls in the context."""
    vector = message.content.array_records["arrays"]["parameters"].numpy()
    site = int(context.node_config["partition-id"])
    calls = context.state.setdefault("calls", MetricRecord({"n": 0}))
    calls["n"] += 1
    arrays = ArrayRecord({"parameters": Array(vector * np.float32(site))})
    metrics = MetricRecord({"site": site, "process": os.getpid(), "calls": calls["n"]})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@app.train("slow_first")
def slow_first(message: Message, context: Context) -> Message:
    """Answer late at site 0, so that the others are done before it."""
    if context.node_config["partition-id"] == 0:
        time.sleep(0.3)
    return double(message, context)


@app.train("hang")
def hang(message: Message, context: Context) -> Message:
    """Never answer at site 1."""
    if context.node_config["partition-id"] == 1:
        time.sleep(3600)
    return double(message, context)


@app.train("fail")
def fail(message: Message, context: Context) -> Message:
    """Raise at site 1."""
    if context.node_config["partition-id"] == 1:
        raise ValueError("secret of a patient")
    return double(message, context)


@app.train("die_once")
def die_once(message: Message, context: Context) -> Message:
    """End the process at site 1, the first time."""
    mark = Path(str(message.content.config_records["config"]["mark"]))
    if context.node_config["partition-id"] == 1 and not mark.exists():
        mark.touch()
        os._exit(9)
    return double(message, context)


@app.train("die_always")
def die_always(message: Message, context: Context) -> Message:
    """End the process at site 1, every time."""
    if context.node_config["partition-id"] == 1:
        os._exit(9)
    return double(message, context)


app.train("secagg_count")(double)

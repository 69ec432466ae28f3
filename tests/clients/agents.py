"""An agent in a thread of the test, with a small app instead of the site's."""

import threading
from contextlib import contextmanager

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict

from clients.agent import Agent, AgentParts
from clients.agent_folder import hold_lock, open_agent_folder
from clients.agent_settings import AgentSettings
from clients.agent_status import StatusBoard
from clients.backoff import Backoff
from clients.flower import to_array_record
from clients.stop import Stop
from clients.work import Work
from fedtrain.link.parcel import Parcel


class App:
    """Doubles a model; counts how often it was asked."""

    def __init__(self):
        self.asked = 0
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.may_end.set()

    def __call__(self, message, context):
        self.asked += 1
        self.begun.set()
        assert self.may_end.wait(30)
        model = message.content["arrays"]["model"].numpy()
        content = RecordDict(
            {
                "arrays": to_array_record({"model": model * 2}),
                "config": ConfigRecord({"asked": self.asked}),
            }
        )
        return Message(content, reply_to=message)


class Running:
    """An agent that runs in a thread."""

    def __init__(self, site, app, *, settings=None, version="0.1.0"):
        self.folder, self.stop, self.app = open_agent_folder(site), Stop(5.0), app
        settings = settings or AgentSettings()
        self.board = StatusBoard(self.folder.status, "berlin")
        parts = AgentParts(site, version, settings, self.folder, self.board, self.stop)
        work = Work(app, site, settings=settings, stop=self.stop, board=self.board)
        self.agent = Agent(parts, work, backoff=Backoff(first=0.05, longest=0.2))
        self.error = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        try:
            with hold_lock(self.folder):
                self.agent.run()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    def end(self):
        self.stop.is_wanted = True
        self.thread.join(20)
        assert not self.thread.is_alive(), "the agent did not end"

    @property
    def status(self):
        return self.board.status


@contextmanager
def running(site, app=None, **options):
    """Run an agent until the end of the block."""
    agent = Running(site, app or App(), **options)
    agent.thread.start()
    try:
        yield agent
    finally:
        agent.app.may_end.set()
        agent.end()


def make_task(size=100):
    return Parcel(
        "train",
        values={"config": {"run-id": "heart-1", "server-round": 3}},
        arrays={"arrays": {"model": np.arange(size, dtype=np.float32)}},
    )

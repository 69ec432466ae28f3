"""An agent that kills itself at one point: `python -m tests.clients.killed SITE POINT`."""

import os
import signal
import sys
import time
from pathlib import Path

from fedtrain.link.suites import restrict_suites

restrict_suites()

import numpy as np  # noqa: E402

from clients import outbox  # noqa: E402
from clients.agent_folder import AgentFolder  # noqa: E402
from clients.outbox import Outbox  # noqa: E402
from clients.serving import Serving  # noqa: E402
from clients.session import Session  # noqa: E402
from fedtrain.link.content import PartialFile  # noqa: E402
from tests.clients.agents import App, Running  # noqa: E402


def die_at_call(number, *, before=False):
    """Return a decorator: the process is killed at a call, when it is done or before it begins."""

    def decorate(function):
        left = number

        def counting(*arguments, **options):
            nonlocal left
            left -= 1
            if not left and before:
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*arguments, **options)
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return counting

    return decorate


class Drawing(App):
    """Draws its answer, so that one that is computed again is another."""

    def __call__(self, message, context):
        reply = super().__call__(message, context)
        array = reply.content["arrays"]["model"].numpy()
        array[:] = np.random.default_rng().normal(size=array.shape)
        return reply


class Sleeping(App):
    """Is at its task for a long time."""

    def __call__(self, message, context):
        time.sleep(120)
        raise AssertionError


# What is done at each point of a task, in order.
POINTS = {
    "hello": (Session, "hello", die_at_call(1)),
    "greeted": (AgentFolder, "save_session", die_at_call(1)),
    "receiving": (PartialFile, "append", die_at_call(3)),
    "received": (PartialFile, "finish", die_at_call(1)),
    "worked": (Drawing, "__call__", die_at_call(1)),
    "writing": (outbox, "_write", die_at_call(1)),
    "kept": (Outbox, "put", die_at_call(1)),
    "sending": (Serving, "_count_up", die_at_call(3)),
    "sent": (Session, "upload", die_at_call(1)),
    "acknowledged": (Outbox, "remove", die_at_call(1, before=True)),
}
# From here on an answer is not computed again.
KEPT = ("kept", "sending", "sent", "acknowledged")

if __name__ == "__main__":
    point = sys.argv[2] if len(sys.argv) > 2 else ""
    if point in POINTS:
        owner, name, decorate = POINTS[point]
        setattr(owner, name, decorate(getattr(owner, name)))
    agent = Running(Path(sys.argv[1]), Sleeping() if point == "sleeping" else Drawing())
    with agent.stop.listening():
        agent._run()

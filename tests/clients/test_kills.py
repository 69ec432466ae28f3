"""An agent that is killed at any point of a task, and the next one that goes on."""

import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from clients.agent_folder import open_agent_folder
from clients.agent_status import load_status
from clients.outbox import Outbox
from tests.clients.agents import make_task
from tests.clients.killed import KEPT, POINTS

ROOT = Path(__file__).resolve().parents[2]
LARGE = 1_000_000
pytestmark = pytest.mark.slow


@contextmanager
def start(site, *point):
    command = [sys.executable, "-m", "tests.clients.killed", site, *point]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("point", POINTS)
def test_killed_agent_is_followed_by_one_that_goes_on(site, coordinator, point):
    task = coordinator.ask(make_task(LARGE))
    with start(site, point) as process:
        assert process.wait(60) == -signal.SIGKILL
    stored = Outbox(open_agent_folder(site).outbox).find(task)
    assert (stored is not None) == (point in KEPT)
    kept = stored and stored.path.read_bytes()
    with start(site):
        coordinator.get_reply(task, 60)
    reply = coordinator.replies[task]
    assert kept in (None, reply)
    # What a killed process had on the way is lost with its sockets.
    assert coordinator.downloaded <= len(coordinator.contents[task]) + 4 * 2**20
    assert coordinator.uploaded == len(reply)


def test_task_that_was_dropped_by_a_stop_comes_again(site, coordinator):
    task = coordinator.ask(make_task())
    with start(site, "sleeping") as process:
        coordinator.wait(lambda: is_working(site), 60)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert (coordinator.left, task in coordinator.replies) == (1, False)
    with start(site):
        coordinator.get_reply(task, 60)


def is_working(site):
    status = load_status(open_agent_folder(site).status)
    return status is not None and status.state == "working"

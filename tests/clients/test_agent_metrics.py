import socket
import urllib.request
from contextlib import closing

import pytest

from clients.agent_metrics import serving_metrics
from clients.agent_status import StatusBoard
from fedtrain.errors import ConfigError
from tests.link.deployment import find_port


@pytest.fixture
def board(tmp_path):
    return StatusBoard(tmp_path / "status.json", "berlin")


def read(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
        lines = response.read().decode().splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
    return {name: float(value) for name, value in pairs}


def test_metrics_are_the_status_s(board):
    port = find_port()
    with serving_metrics(board, port):
        board.update(state="working", budget={"left": 0.5}, clock_skew_ms=1500)
        board.count(tasks=3, bytes_up=10)
        found = read(port)
    assert found['fedtrain_agent_state{state="working"}'] == 1
    assert found['fedtrain_agent_state{state="waiting"}'] == 0
    assert (found["fedtrain_agent_tasks_total"], found["fedtrain_agent_bytes_up_total"]) == (3, 10)
    assert found["fedtrain_agent_budget_left_ratio"] == 0.5
    assert found["fedtrain_agent_clock_skew_seconds"] == 1.5


def test_metrics_are_served_on_loopback_only(board):
    port = find_port()
    with serving_metrics(board, port), closing(socket.socket()) as other:
        other.bind(("127.0.0.2", port))  # another loopback address: it is still free


def test_no_port_serves_nothing(board):
    with serving_metrics(board, 0):
        assert board.status.tasks == 0


def test_port_that_is_taken_is_refused_with_the_cure(board):
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(ConfigError, match="choose another"),
        serving_metrics(board, taken.getsockname()[1]),
    ):
        pytest.fail("it was served")


def test_port_is_free_again_afterwards(board):
    port = find_port()
    for _ in range(2):
        with serving_metrics(board, port):
            assert read(port)

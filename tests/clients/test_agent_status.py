import json
import time

import pytest

from clients.agent_status import AgentStatus, StatusBoard, load_status
from fedtrain.errors import SiteError


def test_status_is_read_back(tmp_path):
    board = StatusBoard(tmp_path / "status.json", "berlin")
    board.update(state="working", round=3)
    assert load_status(tmp_path / "status.json") == board.status


def test_no_status_is_none(tmp_path):
    assert load_status(tmp_path / "status.json") is None


def test_since_changes_with_the_state_only(tmp_path):
    board = StatusBoard(tmp_path / "status.json", "berlin")
    board.update(since="long ago")
    board.update(state="connecting", round=2)
    assert board.status.since == "long ago"
    board.update(state="waiting")
    assert board.status.since != "long ago"


def test_counters_add_up_without_a_write_each(tmp_path):
    board = StatusBoard(tmp_path / "status.json", "berlin")
    for _ in range(1000):
        board.count(bytes_up=2, tasks=1)
    assert (board.status.bytes_up, board.status.tasks) == (2000, 1000)
    assert load_status(tmp_path / "status.json").tasks < 1000


def test_full_disk_does_not_stop_an_agent(tmp_path):
    board = StatusBoard(tmp_path / "no such folder" / "status.json", "berlin")
    board.update(state="working")
    assert board.status.state == "working"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"state": "waiting"}', "nonsense"])
def test_file_that_is_no_status_is_refused_with_the_cure(tmp_path, text):
    (tmp_path / "status.json").write_text(text)
    with pytest.raises(SiteError, match="remove it"):
        load_status(tmp_path / "status.json")


def test_status_of_a_newer_agent_is_read(tmp_path):
    (tmp_path / "status.json").write_text(json.dumps({"site": "berlin", "mood": "fine"}))
    assert load_status(tmp_path / "status.json") == AgentStatus("berlin")


def test_states_of_quick_tasks_are_in_the_file_a_moment_later(tmp_path):
    board = StatusBoard(tmp_path / "status.json", "berlin")
    for number in range(100):
        board.update(state="working", round=number)
        board.update(state="waiting")
    assert load_status(tmp_path / "status.json").round < 99
    deadline = time.monotonic() + 10
    while load_status(tmp_path / "status.json") != board.status and time.monotonic() < deadline:
        time.sleep(0.05)
    assert load_status(tmp_path / "status.json") == board.status


def test_end_of_an_agent_is_in_the_file_at_once(tmp_path):
    board = StatusBoard(tmp_path / "status.json", "berlin")
    board.update(state="working")
    board.update(state="waiting")
    board.update(state="stopped")
    assert load_status(tmp_path / "status.json").state == "stopped"

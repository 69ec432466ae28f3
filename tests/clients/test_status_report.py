import io
import json
from dataclasses import replace

import pytest

from clients.agent_status import STATES, AgentStatus
from clients.status_report import build_report, find_state, is_at_work, render_report
from fedtrain.report.tables import make_console

STATUS = AgentStatus("berlin", state="waiting", since="2026-01-01T10:00:00+00:00")


def render(status, *, running):
    file = io.StringIO()
    make_console(file).print(render_report(status, running=running))
    return file.getvalue()


def test_state_of_a_killed_agent_is_not_what_its_file_says():
    assert find_state(STATUS, running=True) == "waiting"
    assert find_state(STATUS, running=False) == "killed"


@pytest.mark.parametrize("state", ["stopped", "failed"])
def test_agent_that_ended_says_so_itself(state):
    assert find_state(replace(STATUS, state=state), running=False) == state


def test_agent_that_never_ran_is_told_how_to():
    assert "fedtrain client start" in render(None, running=False)


@pytest.mark.parametrize("state", STATES)
def test_agent_at_work_has_a_session(state):
    expected = state not in ("connecting", "stopped", "failed")
    assert is_at_work(replace(STATUS, state=state), running=True) == expected
    assert not is_at_work(replace(STATUS, state=state), running=False)


def test_report_says_what_is_missing_and_what_is_left():
    status = replace(STATUS, missing="the coordinator", budget={"spent": 0.25, "left": 0.75})
    text = render(status, running=True)
    assert "the coordinator" in text
    assert "25.0% spent, 75.0% left" in text


def test_report_is_json():
    tree = json.loads(json.dumps(build_report(STATUS, running=False)))
    assert (tree["site"], tree["state"], tree["running"]) == ("berlin", "killed", False)

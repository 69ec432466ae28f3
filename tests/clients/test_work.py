import logging
import time

import numpy as np
import pytest

from clients.agent_settings import AgentSettings
from clients.agent_status import StatusBoard
from clients.flower import make_error_reply
from clients.stop import Dropped, Stop
from clients.work import Work
from fedtrain.errors import DataError
from fedtrain.link.parcel import Parcel, pack, unpack
from tests.clients.agents import App, make_task

TASK = bytes(range(32))


@pytest.fixture
def board(tmp_path):
    return StatusBoard(tmp_path / "status.json", "berlin")


def ask(app, board, content, stop=None):
    settings = AgentSettings(data_path="/srv/data")
    work = Work(app, board._path.parent, settings=settings, stop=stop or Stop(1), board=board)
    data = bytearray(b"".join(pack(content)) if isinstance(content, Parcel) else content)
    return unpack(b"".join(work.answer(TASK, memoryview(data))))


def test_app_is_told_where_site_and_data_are(board):
    seen = {}

    def app(message, context):
        seen.update(context.node_config)
        return make_error_reply(message, 1, "x")

    ask(app, board, make_task())
    assert seen == {
        "site-dir": str(board._path.parent),
        "data-path": "/srv/data",
        "partition-id": 0,
    }


def test_error_of_the_app_counts_as_an_answer_and_an_error(board):
    ask(lambda message, context: make_error_reply(message, 104, "x"), board, make_task())
    assert (board.status.tasks, board.status.errors) == (1, 1)


def test_exception_is_in_the_log_and_not_in_the_answer(board, caplog):
    def app(message, context):
        raise DataError("row 3 of /secret/ward.csv")

    with caplog.at_level(logging.INFO, "fedtrain"):
        reply = ask(app, board, make_task())
    assert reply.error == (102, "data: the site's data cannot be used")
    assert "ward.csv" in caplog.text


def test_processor_time_of_a_task_is_the_sites_own(board, caplog):
    def work(message, context):
        until = time.process_time() + 0.02
        while time.process_time() < until:
            pass
        return App()(message, context)

    with caplog.at_level(logging.INFO, "fedtrain"):
        reply = ask(work, board, make_task())
    assert 0.02 <= board.status.cpu_seconds < 1
    assert "task_done cpu_seconds=0.0" in caplog.text
    assert "seconds" not in repr(reply.values)


def test_reply_that_no_parcel_can_hold_is_a_public_code(board):
    def app(message, context):
        reply = App()(message, context)
        reply.content["arrays"]["model"]._held = np.array(["text"])
        return reply

    assert ask(app, board, make_task()).error[0] == 199


def test_dropped_task_has_no_answer(board):
    stop = Stop(1)
    stop.is_late = True
    with pytest.raises(Dropped):
        ask(App(), board, make_task(), stop)


def test_name_of_a_run_cannot_write_lines_into_the_log(board, caplog):
    task = Parcel("train", {"config": {"run-id": "x\n2026 ERROR forged\x1b[2J" + "y" * 999}})
    with caplog.at_level(logging.INFO, "fedtrain"):
        ask(App(), board, task)
    assert len(board.status.run) <= 80
    assert not {"\n", "\x1b"} & set(board.status.run)
    assert "\nERROR forged" not in caplog.text

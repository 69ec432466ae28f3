import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from simulations.flower import HeldArray, hold, view
from simulations.grid import FIRST_NODE_ID, InProcessGrid

APP = "tests.simulations.apps:app"
SITES = 6


@pytest.fixture(params=[1, 2, 3])
def grid(request):
    with InProcessGrid(APP, sites=SITES, workers=request.param) as made:
        yield made


@pytest.fixture
def pool():
    with InProcessGrid(APP, sites=SITES, workers=2) as made:
        yield made


def make_messages(action="train", size=5, value=1.0, **config):
    content = RecordDict(
        {
            "arrays": hold({"parameters": np.full(size, value, np.float32)}),
            "config": ConfigRecord(config),
        }
    )
    nodes = range(FIRST_NODE_ID, FIRST_NODE_ID + SITES)
    return [Message(content, dst_node_id=node, message_type=action) for node in nodes]


def read(reply):
    return reply.content.array_records["arrays"]["parameters"].numpy()


def test_replies_come_in_the_messages_order(grid):
    replies = list(grid.send_and_receive(make_messages("train.slow_first")))
    assert [read(reply)[0] for reply in replies] == list(range(SITES))
    assert [r.metadata.src_node_id for r in replies] == list(grid.get_node_ids())


def test_reply_answers_its_message(grid):
    messages = make_messages()
    replies = list(grid.send_and_receive(messages))
    assert [r.metadata.reply_to_message_id for r in replies] == [
        m.metadata.message_id for m in messages
    ]
    assert len({m.metadata.message_id for m in messages}) == SITES


def test_exception_becomes_an_error_reply_without_its_text(grid):
    replies = list(grid.send_and_receive(make_messages("train.fail")))
    assert [reply.has_error() for reply in replies] == [False, True] + [False] * 4
    assert "secret" not in replies[1].error.reason


def test_next_round_gets_its_own_arrays(grid):
    for value, size in ((1.0, 5), (2.0, 5), (3.0, 4000), (4.0, 3)):
        replies = list(grid.send_and_receive(make_messages(size=size, value=value)))
        assert all(read(r).shape == (size,) for r in replies)
        assert [read(r)[-1] for r in replies] == [value * site for site in range(SITES)]


def test_each_message_may_have_its_own_content(grid):
    nodes = list(grid.get_node_ids())
    messages = [
        Message(
            RecordDict({"arrays": hold({"parameters": np.full(2, i, np.float32)})}),
            dst_node_id=nodes[i],
            message_type="train",
        )
        for i in range(SITES)
    ]
    assert [read(r)[0] for r in grid.send_and_receive(messages)] == [i * i for i in range(SITES)]


def test_replies_kept_in_a_list_do_not_share_memory(grid):
    replies = list(grid.send_and_receive(make_messages()))
    first = read(replies[1]).copy()
    list(grid.send_and_receive(make_messages(value=7.0)))
    np.testing.assert_array_equal(read(replies[1]), first)


def test_pushed_messages_can_be_pulled(grid):
    ids = list(grid.push_messages(make_messages()))
    assert [read(r)[0] for r in grid.pull_messages(ids[:2])] == [0, 1]
    assert list(grid.pull_messages(ids[:2])) == []


def test_messages_are_run_by_worker_processes(pool):
    replies = list(pool.send_and_receive(make_messages()))
    processes = {reply.content["metrics"]["process"] for reply in replies}
    assert os.getpid() not in processes
    assert len(processes) == 2


def test_steps_of_secure_aggregation_stay_with_one_worker_a_site(pool):
    for calls in (1, 2, 3):
        replies = list(pool.send_and_receive(make_messages("train.secagg_count")))
        assert [reply.content["metrics"]["calls"] for reply in replies] == [calls] * SITES
        assert len({reply.content["metrics"]["process"] for reply in replies}) == 2


def test_worker_that_dies_is_started_again_and_its_site_tried_once_more(pool, tmp_path):
    messages = make_messages("train.die_once", mark=str(tmp_path / "mark"))
    replies = list(pool.send_and_receive(messages))
    assert [read(reply)[0] for reply in replies] == list(range(SITES))


def test_site_whose_worker_dies_twice_is_dropped_and_the_others_are_not(pool):
    replies = list(pool.send_and_receive(make_messages("train.die_always")))
    assert [reply.has_error() for reply in replies] == [False, True] + [False] * 4
    assert "no answer" in replies[1].error.reason
    assert [read(r)[0] for r in pool.send_and_receive(make_messages())] == list(range(SITES))


def test_site_that_hangs_is_dropped_at_the_deadline(pool):
    list(pool.send_and_receive(make_messages()))  # the processes have started
    started = time.monotonic()
    replies = list(pool.send_and_receive(make_messages("train.hang"), timeout=3.0))
    assert time.monotonic() - started < 20
    assert replies[1].has_error()
    assert sum(not reply.has_error() for reply in replies) >= 1
    assert not any(reply.has_error() for reply in pool.send_and_receive(make_messages()))


def test_replies_that_nobody_waits_for_do_not_reach_the_next_round(pool):
    half = iter(pool.send_and_receive(make_messages(value=5.0)))
    next(half)
    half.close()
    assert [read(r)[1] for r in pool.send_and_receive(make_messages())] == list(range(SITES))


def test_workers_end_with_their_parent(tmp_path):
    code = (
        "import os, sys; sys.path.insert(0, os.getcwd())\n"
        "from tests.simulations.test_grid import *\n"
        "if __name__ == '__main__':\n"
        "    grid = InProcessGrid(APP, sites=SITES, workers=2)\n"
        "    replies = list(grid.send_and_receive(make_messages()))\n"
        "    print(*{r.content['metrics']['process'] for r in replies}, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    script = tmp_path / "parent.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    workers = [int(word) for word in done.stdout.split()]
    assert len(workers) == 2, done.stderr
    deadline = time.monotonic() + 10
    while any(is_alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(is_alive(pid) for pid in workers)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_held_array_serialises_as_flower_does():
    array = HeldArray(np.arange(6, dtype=np.float32).reshape(2, 3))
    assert array.dtype == "float32"
    assert array.shape == (2, 3)
    from flwr.app import Array

    assert array.data == Array(np.arange(6, dtype=np.float32).reshape(2, 3)).data


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
def test_view_of_a_flower_array_is_its_values(shape):
    from flwr.app import Array

    values = np.random.default_rng(0).normal(size=shape)
    np.testing.assert_array_equal(view(Array(values)), values)
    np.testing.assert_array_equal(view(Array(np.asfortranarray(values))), values)

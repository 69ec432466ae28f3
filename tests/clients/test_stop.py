"""Signals, in a process of their own: the test's own has an alarm already."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FRAME = """
import signal, time
from clients.stop import Dropped, Stop
stop, seconds = Stop({seconds}), 0
with stop.listening():
{body}
"""
IN_TASK = """
    try:
        with stop.in_task():
            signal.raise_signal(signal.SIGTERM)
            {more}
            time.sleep(0.5)
            print("finished")
    except Dropped:
        print("dropped")
"""


def run(body, seconds=60.0):
    code = FRAME.format(seconds=seconds, body=body)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_task_at_hand_is_finished_within_its_time():
    assert run(IN_TASK.format(more="")) == "finished"


def test_task_is_dropped_when_its_time_is_over():
    assert run(IN_TASK.format(more=""), seconds=0.1) == "dropped"


def test_second_signal_drops_the_task_at_once():
    assert run(IN_TASK.format(more="signal.raise_signal(signal.SIGINT)")) == "dropped"


def test_no_task_begins_when_it_is_too_late():
    body = """
    signal.raise_signal(signal.SIGTERM); time.sleep(0.1)
    try:
        with stop.in_task():
            print("began")
    except Dropped:
        print("dropped")
"""
    assert run(body, seconds=0.01) == "dropped"


def test_what_is_no_task_is_not_interrupted():
    body = """
    signal.raise_signal(signal.SIGTERM)
    time.sleep(0.2)
    print(stop.is_wanted, stop.is_late)
"""
    assert run(body, seconds=0.05) == "True True"


def test_app_cannot_take_the_drop_for_an_error():
    body = IN_TASK.format(more="").replace(
        'time.sleep(0.5)\n            print("finished")',
        'exec("try:\\n time.sleep(1)\\nexcept Exception: print(1)")',
    )
    assert run(body, seconds=0.05) == "dropped"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGALRM"])
def test_handlers_are_put_back(name):
    body = f"    pass\nprint(signal.getsignal(signal.{name}).__class__.__name__)"
    assert run(body) in ("Handlers", "builtin_function_or_method")

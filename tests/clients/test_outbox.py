import hashlib
import os
import resource
import signal
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.outbox import Outbox
from fedtrain.errors import SiteError

TASK, OTHER = bytes(32), bytes(31) + b"\1"


def put(outbox: Outbox, task: bytes, *parts: bytes):
    return outbox.put(task, [memoryview(part) for part in parts])


def test_reply_is_found_again_by_another_process_of_the_site(tmp_path):
    stored = put(Outbox(tmp_path), TASK, b"one", b"two")
    assert Outbox(tmp_path).find(TASK) == stored
    assert stored.path.read_bytes() == b"onetwo"
    assert (stored.size, stored.digest) == (6, hashlib.sha256(b"onetwo").digest())


def test_second_reply_to_a_task_does_not_take_the_first_one_s_place(tmp_path):
    outbox = Outbox(tmp_path)
    first = put(outbox, TASK, b"first")
    assert put(outbox, TASK, b"second") == first
    assert outbox.find(TASK).path.read_bytes() == b"first"


def test_reply_of_another_task_is_not_found(tmp_path):
    outbox = Outbox(tmp_path)
    put(outbox, TASK, b"first")
    assert outbox.find(OTHER) is None


def test_reply_whose_bytes_a_power_cut_took_is_never_sent(tmp_path):
    outbox = Outbox(tmp_path)
    os.truncate(put(outbox, TASK, bytes(100)).path, 0)
    assert outbox.find(TASK) is None


@settings(deadline=None)  # it waits for a disk
@given(position=st.integers(0, 99), change=st.integers(1, 255))
def test_damaged_reply_is_never_sent(tmp_path_factory, position, change):
    outbox = Outbox(tmp_path_factory.mktemp("outbox"))
    stored = put(outbox, TASK, bytes(100))
    content = bytearray(100)
    content[position] ^= change
    stored.path.write_bytes(content)
    assert outbox.find(TASK) is None


def test_half_written_reply_is_removed_when_the_outbox_is_opened(tmp_path):
    (tmp_path / f"{TASK.hex()}.partial").write_bytes(b"half")
    assert Outbox(tmp_path).find(TASK) is None
    assert not list(tmp_path.iterdir())


def test_acknowledged_reply_is_forgotten(tmp_path):
    outbox = Outbox(tmp_path)
    put(outbox, TASK, b"first")
    outbox.remove(TASK)
    assert outbox.find(TASK) is None
    assert not list(tmp_path.iterdir())


def test_oldest_replies_make_room_for_new_ones(tmp_path):
    outbox = Outbox(tmp_path, most=3)
    for number in range(5):
        os.utime(put(outbox, bytes([number]) * 32, b"x").path, ns=(number, number))
    kept = [outbox.find(bytes([number]) * 32) is not None for number in range(5)]
    assert kept == [False, False, True, True, True]


def test_bytes_of_all_replies_are_bounded(tmp_path):
    outbox = Outbox(tmp_path, most_bytes=250)
    for number in range(5):
        put(outbox, bytes([number]) * 32, bytes(100))
    assert outbox.count() == 2


def test_files_are_readable_by_their_owner_alone(tmp_path):
    assert put(Outbox(tmp_path), TASK, b"x").path.stat().st_mode & 0o777 == 0o600


def test_full_disk_keeps_nothing_and_says_what_to_do(tmp_path):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        with pytest.raises(SiteError, match=r"2000 bytes .* free space"):
            put(Outbox(tmp_path), TASK, bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())


WRITER = """
import os, sys
from pathlib import Path
from clients import outbox
step, folder = sys.argv[1:]
def die(*_): os.kill(os.getpid(), 9)
if step == "written": Path.replace = die
if step == "renamed": outbox.os.fsync = die
if step == "synced": outbox.sync_folder = die
outbox.Outbox(Path(folder)).put(bytes(32), [memoryview(b"x" * 9999)])
"""


@pytest.mark.parametrize(
    ("step", "found"), [("written", False), ("renamed", True), ("synced", True)]
)
def test_kill_leaves_all_of_a_reply_or_nothing(tmp_path, step, found):
    killed = subprocess.run([sys.executable, "-c", WRITER, step, tmp_path], check=False)
    assert killed.returncode == -signal.SIGKILL
    outbox = Outbox(tmp_path)
    assert (outbox.find(TASK) is not None) == found
    assert len(list(tmp_path.iterdir())) == found

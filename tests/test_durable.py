"""Files that are written whole or not at all."""

import os
import signal
import stat
from multiprocessing import get_context

import pytest

from fedtrain.durable import read_small_file, replace_file
from fedtrain.errors import SiteError


def write_and_die(path, number):
    """Write a file in a process that dies at its n-th fsync: before it, nothing is promised."""
    calls = iter(range(1, 10))

    def sync(handle):
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    os.fsync = sync
    replace_file(path, b"new" * 100_000)


@pytest.mark.parametrize(("number", "left"), [(1, b"old"), (2, b"new" * 100_000)])
def test_process_killed_while_writing_leaves_the_old_content_or_the_new(tmp_path, number, left):
    replace_file(tmp_path / "f", b"old")
    process = get_context("fork").Process(target=write_and_die, args=(tmp_path / "f", number))
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    assert (tmp_path / "f").read_bytes() == left
    replace_file(tmp_path / "f", b"again")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("content", [b"new", "new"])
def test_file_is_replaced_and_nothing_else_is_left(tmp_path, content):
    (tmp_path / "f").write_bytes(b"older and longer")
    replace_file(tmp_path / "f", content)
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_bytes() == b"new"


def test_private_file_was_never_readable_by_others(tmp_path):
    replace_file(tmp_path / "f", b"key", mode=0o600)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o600


def test_file_that_others_can_read_is_refused_where_that_is_forbidden(tmp_path):
    (tmp_path / "f").write_bytes(b"key")
    (tmp_path / "f").chmod(0o644)
    assert read_small_file(tmp_path / "f", forbidden=0o022) == b"key"
    with pytest.raises(SiteError, match="mode 0644, which lets others in; chmod 0600"):
        read_small_file(tmp_path / "f", forbidden=0o077)


def test_file_beyond_any_size_is_not_read_whole(tmp_path):
    with (tmp_path / "f").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(SiteError, match="more than 4194304 bytes"):
        read_small_file(tmp_path / "f")

"""Files of a folder: whole or not at all, for their owner alone, one writer at a time."""

import stat
from multiprocessing import get_context

import pytest

from fedtrain.errors import SiteError
from fedtrain.membership.files import (
    append_line,
    locking,
    make_folder,
    write_file,
    write_new_file,
)
from tests.membership.members import full_disk


def test_file_is_replaced_and_for_its_owner_alone(tmp_path):
    for content in (b"old", b"new"):
        write_file(tmp_path / "f", content)
    assert (tmp_path / "f").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("write", [write_file, write_new_file])
def test_disk_full_leaves_what_was_there(tmp_path, write):
    with full_disk(10), pytest.raises(SiteError, match=r"cannot be written \(File too large\)"):
        write(tmp_path / "f", b"x" * 100)
    assert not list(tmp_path.iterdir())


def test_line_that_does_not_fit_leaves_the_lines_before_it(tmp_path):
    append_line(tmp_path / "f", "first")
    with full_disk(10), pytest.raises(SiteError, match="File too large"):
        append_line(tmp_path / "f", "second" * 10)
    assert (tmp_path / "f").read_bytes() == b"first\n"


def test_line_without_its_end_is_removed_before_the_next(tmp_path):
    (tmp_path / "f").write_bytes(b"first\nsec")
    append_line(tmp_path / "f", "third")
    assert (tmp_path / "f").read_bytes() == b"first\nthird\n"


def test_link_in_place_of_a_partial_file_is_not_followed(tmp_path):
    (tmp_path / "victim").write_bytes(b"kept")
    (tmp_path / "f.partial").symlink_to(tmp_path / "victim")
    with pytest.raises(SiteError, match="cannot be written"):
        write_file(tmp_path / "f", b"new")
    assert (tmp_path / "victim").read_bytes() == b"kept"


def test_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SiteError, match="cannot be made"):
        make_folder(tmp_path / "file" / "folder")


def count(path):
    for _ in range(50):
        with locking(path):
            number = int((path / "n").read_bytes())
            (path / "n").write_bytes(b"%d" % (number + 1))


def test_processes_take_turns(tmp_path):
    (tmp_path / "n").write_bytes(b"0")
    processes = [get_context("fork").Process(target=count, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert (tmp_path / "n").read_bytes() == b"100"


def test_lock_of_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(SiteError, match="cannot be locked"), locking(tmp_path / "missing"):
        pass

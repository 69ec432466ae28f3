"""The store on disk: all or nothing, one at a time, and never silently empty."""

import os
import resource
import subprocess
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.errors import SiteError
from fedtrain.secagg import FileStore, MemoryStore
from tests.secagg.federation import Federation, Round

# A process that saves "new", in which call number `argv[2]` to an operation of the disk kills it.
KILLED = """
import os, pathlib, signal, sys
from fedtrain.secagg import FileStore

folder, number = pathlib.Path(sys.argv[1]), int(sys.argv[2])
store = FileStore(folder)
calls = []

def kill_at(operation):
    def run(*arguments):
        calls.append(operation)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return operation(*arguments)
    return run

os.fsync, os.replace = kill_at(os.fsync), kill_at(os.replace)
store.save("run", b"new" * 100_000)
"""
COUNTING = """
import pathlib, sys
from fedtrain.secagg import FileStore

store = FileStore(pathlib.Path(sys.argv[1]))
for _ in range(40):
    with store.lock("run"):
        store.save("run", str(int(store.load("run")) + 1).encode())
"""


@pytest.fixture
def store(tmp_path):
    return FileStore.create(tmp_path / "state")


def find_record(tmp_path):
    (path,) = (tmp_path / "state").glob("*.state")
    return path


def test_store_gives_back_what_was_saved_last(store, tmp_path):
    assert store.load("run") is None
    store.save("run", b"first")
    store.save("run", b"")
    store.save("other", b"second")
    again = FileStore(tmp_path / "state")
    assert (again.load("run"), again.load("other")) == (b"", b"second")


@given(st.dictionaries(st.text(max_size=200), st.binary(max_size=50), max_size=4))
@settings(max_examples=30, deadline=None)
def test_any_keys_have_files_of_their_own_inside_the_folder(tmp_path_factory, items):
    folder = tmp_path_factory.mktemp("any") / "state"
    store = FileStore.create(folder)
    for key, data in items.items():
        store.save(key, data)
    assert {key: store.load(key) for key in items} == items
    assert len(list(folder.glob("*.state"))) == len(items)
    assert [path.name for path in folder.parent.iterdir()] == ["state"]


@pytest.mark.parametrize("key", ["../run", "a/b", "", ".", "run\x00", "RUN", "ß" * 128])
def test_key_of_any_characters_stays_inside_the_folder(store, tmp_path, key):
    store.save(key, b"data")
    store.save("run", b"other")
    assert store.load(key) == b"data"
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_folder_and_files_are_readable_by_their_owner_alone(store, tmp_path):
    old = os.umask(0)
    try:
        store.save("run", b"secret")
        with store.lock("run"):
            pass
    finally:
        os.umask(old)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "state").iterdir()}
    assert modes == {0o600}
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_folder_that_others_can_read_is_refused(store, tmp_path):
    (tmp_path / "state").chmod(0o750)
    with pytest.raises(SiteError, match=r"mode 0750.*chmod 700"):
        FileStore(tmp_path / "state")


def test_folder_without_a_store_is_refused(tmp_path):
    """An unmounted disk or a mistyped name must not look like a site that answered nothing."""
    with pytest.raises(SiteError, match="forgets which rounds"):
        FileStore(tmp_path)
    with pytest.raises(SiteError, match="forgets which rounds"):
        FileStore(tmp_path / "missing")


def test_store_that_vanishes_is_not_an_empty_one(store, tmp_path):
    (tmp_path / "state").rename(tmp_path / "away")
    with pytest.raises(SiteError, match="holds no state"):
        store.load("run")
    with pytest.raises(SiteError, match="cannot be locked"):
        store.save("run", b"data")


def test_store_is_created_once(store, tmp_path):
    store.save("run", b"data")
    with pytest.raises(SiteError, match="File exists"):
        FileStore.create(tmp_path / "state")
    assert store.load("run") == b"data"


@pytest.mark.parametrize("place", [0, 31, 32, -1])
def test_damaged_record_is_refused(store, tmp_path, place):
    store.save("run", b"data")
    path = find_record(tmp_path)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(SiteError, match="damaged"):
        store.load("run")


@pytest.mark.parametrize("size", [0, 31, 33])
def test_truncated_record_is_refused(store, tmp_path, size):
    store.save("run", b"data")
    os.truncate(find_record(tmp_path), size)
    with pytest.raises(SiteError, match="damaged"):
        store.load("run")


def test_record_of_another_key_is_refused(store, tmp_path):
    store.save("run", b"old")
    path = find_record(tmp_path)
    old = path.read_bytes()
    path.unlink()
    store.save("other", b"data")
    find_record(tmp_path).write_bytes(old)
    with pytest.raises(SiteError, match="another record's"):
        store.load("other")


def test_unreadable_record_is_refused(store, tmp_path):
    store.save("run", b"data")
    path = find_record(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(SiteError, match="cannot be read"):
        store.load("run")


def test_record_that_cannot_be_written_is_an_error_and_the_old_one_stays(store, tmp_path):
    store.save("run", b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(SiteError, match=r"cannot be written \(File too large\)"):
            store.save("run", b"new" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert store.load("run") == b"old"
    assert not list((tmp_path / "state").glob("*.partial"))


@pytest.mark.parametrize(("number", "left"), [(1, b"old"), (2, b"old"), (3, b"new" * 100_000)])
def test_process_killed_while_saving_leaves_the_old_data_or_the_new(store, tmp_path, number, left):
    """Killed before the fsync of the file, before the rename, before the fsync of the folder."""
    store.save("run", b"old")
    arguments = [sys.executable, "-c", KILLED, str(tmp_path / "state"), str(number)]
    assert subprocess.run(arguments, check=False).returncode == -9
    assert FileStore(tmp_path / "state").load("run") == left
    assert not list((tmp_path / "state").glob("*.partial"))


def test_two_processes_take_turns(store, tmp_path):
    store.save("run", b"0")
    arguments = [sys.executable, "-c", COUNTING, str(tmp_path / "state")]
    processes = [subprocess.Popen(arguments) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert store.load("run") == b"80"


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_key_that_is_locked_is_waited_for(store, kind):
    shared = MemoryStore() if kind == "memory" else store
    entered = threading.Event()

    def enter():
        with shared.lock("run"):
            entered.set()

    with shared.lock("run"):
        thread = threading.Thread(target=enter)
        thread.start()
        assert not entered.wait(0.1)
    thread.join(10)
    assert entered.is_set()


def test_round_over_stores_on_disk_is_exact(tmp_path):
    federation = Federation(4)
    federation.stores = {s: FileStore.create(tmp_path / s) for s in federation.sites}
    attempt = Round(federation, federation.make_context())
    assert attempt.run().tobytes() == attempt.compute_plain_sum().tobytes()

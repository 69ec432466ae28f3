"""A coordinator that is killed at any step of a write finds all or nothing of it afterwards."""

import hashlib

import pytest

from server.database import Database
from server.faults import CoordinatorError
from server.outstanding import Outstanding
from server.spool import Spool
from server.store import Content, Store, Task, compute_task_id

RUN = bytes(range(16))
LATE = (198, "late")


class Killed(BaseException):
    """Stands for the end of the process: what follows it never runs."""


def make_content(data, inline=True):
    return Content(len(data), hashlib.sha256(data).digest(), data if inline else None)


def make_task(site, round=1, data=b"model", inline=True):
    content = make_content(data, inline)
    id_ = compute_task_id(RUN, site, "train", content.digest)
    return Task(id_, RUN, round, site, content, 60.0)


class Coordinator:
    """The durable parts, opened from a folder; `kill_at` names the step that it dies at."""

    def __init__(self, folder, kill_at=None):
        self.kill_at = kill_at
        self.spool = Spool(folder / "spool")
        self.database = Database(folder / "link.db", on_step=self._step)
        self.store = Store(self.database, self.spool)
        self.store.recover()
        self.outstanding = Outstanding(self.database, self.store)

    def _step(self, name):
        if name == self.kill_at:
            raise Killed(name)

    def list_open(self):
        return [task.site for task in self.store.load_open_tasks()]


def run_and_kill(folder, step, action):
    """Do something in a coordinator that dies at a step; return the one that is started after."""
    coordinator = Coordinator(folder, step)
    with pytest.raises(Killed):
        action(coordinator)
    coordinator.database.close()
    return Coordinator(folder)


def ask(folder, *tasks):
    coordinator = Coordinator(folder)
    coordinator.outstanding.open_exchange(tasks)
    coordinator.database.close()


@pytest.mark.parametrize(("step", "found"), [("written", []), ("committed", ["a", "b"])])
def test_tasks_are_written_all_or_none(tmp_path, step, found):
    tasks = [make_task("a"), make_task("b")]
    after = run_and_kill(tmp_path, f"tasks-{step}", lambda c: c.outstanding.open_exchange(tasks))
    assert after.list_open() == found


@pytest.mark.parametrize(("step", "found"), [("written", ["a"]), ("committed", [])])
def test_reply_is_there_once_it_is_committed(tmp_path, step, found):
    task, reply = make_task("a"), make_content(b"update")
    ask(tmp_path, task)
    after = run_and_kill(tmp_path, f"reply-{step}", lambda c: c.outstanding.answer(task, reply))
    assert after.list_open() == found
    assert (after.store.load_reply(task.id) is None) == bool(found)


@pytest.mark.parametrize(("step", "found"), [("written", ["a", "b"]), ("committed", [])])
def test_exchange_is_closed_for_all_or_none(tmp_path, step, found):
    tasks = [make_task("a"), make_task("b")]
    ask(tmp_path, *tasks)
    late = [task.id for task in tasks]
    after = run_and_kill(tmp_path, f"errors-{step}", lambda c: c.outstanding.answer_for(late, LATE))
    assert after.list_open() == found


def test_closed_exchange_stays_closed_for_who_answers_late(tmp_path):
    task = make_task("a")
    ask(tmp_path, task)
    first = Coordinator(tmp_path)
    first.outstanding.answer_for([task.id], LATE)
    first.database.close()
    after = Coordinator(tmp_path)
    after.outstanding.open_exchange([task])
    assert not after.outstanding.answer(task, make_content(b"update"))
    assert after.store.load_reply(task.id).error == LATE


@pytest.mark.parametrize(("step", "kept"), [("written", True), ("committed", False)])
def test_rounds_are_forgotten_whole(tmp_path, step, kept):
    task = make_task("a", inline=False)
    before = Coordinator(tmp_path)
    before.spool.save_content(task.content.digest, [memoryview(b"model")])
    before.outstanding.open_exchange([task])
    before.database.close()
    after = run_and_kill(
        tmp_path, f"forget-{step}", lambda c: c.store.forget_rounds(RUN, through=1)
    )
    assert bool(after.list_open()) == kept
    assert after.spool.get_content(task.content.digest).exists() == kept


def test_what_came_before_the_rounds_stays(tmp_path):
    first, later = make_task("a", round=0), make_task("a", round=1, data=b"other")
    coordinator = Coordinator(tmp_path)
    coordinator.outstanding.open_exchange([first])
    coordinator.outstanding.answer(first, make_content(b"description"))
    coordinator.outstanding.open_exchange([later])
    coordinator.store.forget_rounds(RUN, through=1)
    assert coordinator.store.find_described(RUN) == {"a"}
    assert coordinator.list_open() == []


def test_new_exchange_withdraws_what_others_were_asked(tmp_path):
    coordinator = Coordinator(tmp_path)
    coordinator.outstanding.open_exchange([make_task("a")])
    coordinator.outstanding.open_exchange([make_task("b")])
    assert coordinator.list_open() == ["b"]


@pytest.mark.parametrize("step", ["withdraw-written", "withdraw-committed", "tasks-written"])
def test_killed_before_the_new_exchange_asks_it_again(tmp_path, step):
    ask(tmp_path, make_task("a"))
    new = [make_task("b")]
    after = run_and_kill(tmp_path, step, lambda c: c.outstanding.open_exchange(new))
    after.outstanding.open_exchange(new)
    assert after.list_open() == ["b"]


def test_answered_task_is_not_asked_again(tmp_path):
    task = make_task("a")
    coordinator = Coordinator(tmp_path)
    coordinator.outstanding.open_exchange([task])
    coordinator.outstanding.answer(task, make_content(b"update"))
    coordinator.database.close()
    after = Coordinator(tmp_path)
    after.outstanding.open_exchange([task, make_task("b")])
    assert after.list_open() == ["b"]
    assert after.store.load_reply(task.id).content.inline == b"update"


def test_first_reply_stays(tmp_path):
    task = make_task("a")
    coordinator = Coordinator(tmp_path)
    coordinator.outstanding.open_exchange([task])
    assert coordinator.store.add_reply(task, make_content(b"first"))
    assert not coordinator.store.add_reply(task, make_content(b"second"))
    assert coordinator.store.load_reply(task.id).content.inline == b"first"


@pytest.mark.parametrize("damage", [b"updatE", b"upd"])
def test_reply_whose_file_lost_its_bytes_is_asked_for_again(tmp_path, damage):
    task, reply = make_task("a"), make_content(b"update", inline=False)
    ask(tmp_path, task)
    coordinator = Coordinator(tmp_path)
    path = coordinator.spool.get_reply(task.id, reply.digest)
    path.write_bytes(b"update")
    coordinator.outstanding.answer(task, reply)
    path.write_bytes(damage)
    coordinator.database.close()
    assert Coordinator(tmp_path).list_open() == ["a"]


def test_whole_file_is_kept_through_a_restart(tmp_path):
    task, reply = make_task("a"), make_content(b"update", inline=False)
    ask(tmp_path, task)
    coordinator = Coordinator(tmp_path)
    coordinator.spool.get_reply(task.id, reply.digest).write_bytes(b"update")
    coordinator.outstanding.answer(task, reply)
    coordinator.database.close()
    assert Coordinator(tmp_path).store.load_reply(task.id).content == reply


def test_upload_that_has_begun_is_kept_through_a_restart(tmp_path):
    task, reply = make_task("a"), make_content(b"update", inline=False)
    ask(tmp_path, task)
    Spool(tmp_path / "spool").get_reply(task.id, reply.digest).write_bytes(b"upd")
    after = Coordinator(tmp_path)
    assert after.spool.get_reply(task.id, reply.digest).read_bytes() == b"upd"


def test_files_that_no_task_needs_are_removed_at_the_start(tmp_path):
    spool = Spool(tmp_path / "spool")
    spool.save_content(bytes(32), [memoryview(b"left over")])
    spool.get_reply(bytes(32), bytes(32)).write_bytes(b"left over")
    Coordinator(tmp_path)
    assert [p for p in (tmp_path / "spool").rglob("*") if p.is_file()] == []


def test_nodes_are_the_same_for_ever(tmp_path):
    first = Coordinator(tmp_path).store.find_nodes(["b", "a"])
    after = Coordinator(tmp_path).store.find_nodes(["c", "a", "b"])
    assert first == {"a": 2, "b": 3}
    assert after == {"a": 2, "b": 3, "c": 4}


@pytest.mark.parametrize(("step", "found"), [("written", []), ("committed", [("a", 2), ("b", 3)])])
def test_nodes_are_given_all_or_none(tmp_path, step, found):
    after = run_and_kill(tmp_path, f"nodes-{step}", lambda c: c.store.find_nodes(["a", "b"]))
    assert after.database.read("SELECT site, node FROM nodes") == found
    assert after.store.find_nodes(["a", "b"]) == {"a": 2, "b": 3}


def test_task_id_depends_on_every_part():
    parts = (RUN, "a", "train", bytes(32))
    others = [
        (bytes(16), *parts[1:]),
        (RUN, "b", *parts[2:]),
        (RUN, "a", "evaluate", bytes(32)),
        (*parts[:3], bytes(31) + b"1"),
        (RUN, "at", "rain", bytes(32)),
    ]
    ids = {compute_task_id(*other) for other in (parts, *others)}
    assert len(ids) == len(others) + 1


def test_database_of_a_newer_version_is_refused(tmp_path):
    database = Database(tmp_path / "link.db")
    with database.writing("later") as connection:
        connection.execute("PRAGMA user_version = 9")
    database.close()
    with pytest.raises(CoordinatorError, match=r"schema 9.*upgrade"):
        Database(tmp_path / "link.db")


def test_full_disk_writes_nothing_and_goes_on_after(tmp_path):
    coordinator = Coordinator(tmp_path)
    pages = coordinator.database.read("PRAGMA page_count")[0][0]
    coordinator.database.read(f"PRAGMA max_page_count = {pages + 2}")
    large = make_task("a", data=bytes(2**20))
    with pytest.raises(CoordinatorError, match="make room"):
        coordinator.outstanding.open_exchange([large])
    assert coordinator.outstanding.count() == 0
    coordinator.database.read("PRAGMA max_page_count = 100000")
    coordinator.outstanding.open_exchange([large])
    assert coordinator.list_open() == ["a"]

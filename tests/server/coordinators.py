"""A coordinator's durable parts without a network, and sites that answer from threads."""

import hashlib
import threading

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from fedtrain.link.contract import INLINE_BYTES
from fedtrain.link.parcel import Parcel, pack, unpack
from server.database import Database
from server.flower import hold
from server.link_grid import LinkGrid
from server.outstanding import Outstanding
from server.sessions import Sessions
from server.spool import Spool
from server.store import Content, Store

RUN = bytes(range(16))


class Killed(BaseException):
    """Stands for the end of the process: what follows it never runs."""


class Coordinator:
    """What a coordinator opens from its folder; `kill_at` names the step that it dies at."""

    def __init__(self, folder, sites=("a", "b"), *, kill_at=None):
        self.kill_at = kill_at
        self.is_killed = False
        self.members = set(sites)
        self.is_over = False
        folder.mkdir(exist_ok=True)
        self.spool = Spool(folder / "spool")
        self.database = Database(folder / "link.db", on_step=self._step)
        self.store = Store(self.database, self.spool)
        self.store.recover()
        self.outstanding = Outstanding(self.database, self.store)
        self.sessions = Sessions(self.database, poll_seconds=20)
        self.nodes = self.store.find_nodes(sites)

    def _step(self, name):
        if name == self.kill_at or self.is_killed:
            self.is_killed = True  # whatever another thread still writes is never committed
            raise Killed(name)

    def make_grid(self, *, wait_for_sites=0.0):
        return LinkGrid(
            self.outstanding,
            self.store,
            self.spool,
            self.sessions,
            run_id=RUN,
            nodes=self.nodes,
            list_members=lambda: self.members,
            is_over=lambda: self.is_over,
            wait_for_sites=wait_for_sites,
        )

    def answer(self, task, parcel):
        """Hand in a site's reply, as the service does."""
        data = b"".join(pack(parcel)) if isinstance(parcel, Parcel) else parcel
        inline = len(data) <= INLINE_BYTES
        content = Content(len(data), hashlib.sha256(data).digest(), data if inline else None)
        if not inline:
            self.spool.get_reply(task.id, content.digest).write_bytes(data)
        return self.outstanding.answer(task, content)

    def read(self, task):
        """Return what a site is asked, as the service sends it."""
        content = task.content
        data = content.inline or self.spool.get_content(content.digest).read_bytes()
        assert hashlib.sha256(data).digest() == content.digest
        return unpack(data)

    def close(self):
        self.database.close()


class Agents:
    """Threads that answer for sites; `work(site, parcel)` returns a reply, or None for none."""

    def __init__(self, coordinator, sites, work):
        self.asked = []
        self._coordinator = coordinator
        self._work = work
        self._is_over = False
        self._threads = [threading.Thread(target=self._run, args=(site,)) for site in sites]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc):
        self._is_over = True
        self._coordinator.outstanding.wake_all()
        for thread in self._threads:
            thread.join()

    def _run(self, site):
        silent = set()
        while not self._is_over:
            task = self._coordinator.outstanding.wait_for_task(
                site, 0.05 if silent else 60, is_over=lambda: self._is_over
            )
            if task is None or task.id in silent:
                continue
            self.asked.append(site)
            reply = self._work(site, self._coordinator.read(task))
            if reply is None:
                silent.add(task.id)
            else:
                try:
                    self._coordinator.answer(task, reply)
                except Killed:
                    return


def echo(site, parcel):
    """Return what was asked, with the site's name and twice its numbers."""
    arrays = {
        name: {key: 2 * array for key, array in record.items()}
        for name, record in parcel.arrays.items()
    }
    values = {"config": {"site": site, **parcel.values.get("config", {})}}
    return Parcel(parcel.message_type, values, arrays=arrays)


def make_messages(nodes, *, size=4, kind="train", round=1):
    """Return one message a site, all with one content."""
    arrays = hold({"parameters": np.arange(size, dtype=np.float32)})
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({"round": round})})
    return [Message(content, dst_node_id=node, message_type=kind) for node in nodes.values()]


def read_reply(reply):
    """Return a reply's site and numbers, or its error's code."""
    if reply.has_error():
        return reply.error.code
    record = reply.content["arrays"]
    assert isinstance(record, ArrayRecord)
    return reply.content["config"]["site"], record["parameters"].numpy().tolist()

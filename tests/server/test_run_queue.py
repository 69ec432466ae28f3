"""Runs go through the queue one by one, end in words, and go on after a kill at any commit."""

import json
import threading
import time
from contextlib import suppress
from types import SimpleNamespace

import pytest

from clients.app import app
from clients.flower import make_context, make_message, make_parcel
from fedtrain.config import parse_config
from fedtrain.costs import SiteCost, load_costs
from fedtrain.errors import ConfigError
from fedtrain.membership.membership import sign_membership
from fedtrain.membership.records import SITE_ROLE, MemberEntry
from fedtrain.resolution import resolve
from fedtrain.runs import RunDirectory
from fedtrain.secagg.roster import Identity
from server.run_queue import RunQueue, Surroundings, is_small_cohort, is_void
from server.run_records import RunRecords
from tests.server.coordinators import Agents, Coordinator, Killed

SITES = ("a", "b", "c")
SCENARIO = """
[run]
name = "small"
[data]
source = "sklearn:breast_cancer"
validation_fraction = 0.0
[partition]
sites = 3
[model]
name = "logistic"
[training]
learning_rate = 0.1
[federation]
rounds = 3
round_timeout = 60.0
[secure_aggregation]
mode = "off"
"""
ROOT = Identity.from_seed(0, "root")
APP = threading.Lock()


def make_membership():
    entries = [
        MemberEntry(name, SITE_ROLE, Identity.from_seed(0, name).public_key, name.encode() * 32)
        for name in SITES
    ]
    return sign_membership(
        ROOT,
        "demo",
        version=1,
        issued=0,
        entries=entries,
        ca_certificate=b"none",
        coordinator="127.0.0.1:7443",
    )


class Deployed(Coordinator):
    """A coordinator with its queue, without a network."""

    def __init__(self, folder, **options):
        super().__init__(folder, SITES, **options)
        self.records = RunRecords(self.database)
        surroundings = Surroundings(
            make_grid=self._make_grid,
            forget_rounds=lambda id_, through: self.store.forget_rounds(id_, through=through),
            forget_run=self.store.forget_run,
            forget_errors=self.store.forget_errors,
            withdraw=lambda: self.outstanding.open_exchange([]),
            get_membership=make_membership,
            wake=self.wake,
            root_public_key=ROOT.public_key,
        )
        self.queue = RunQueue(folder, self.records, surroundings)

    def _make_grid(self, run_id, sites, is_over):
        grid = self.make_grid(wait_for_sites=60)
        grid._run_id, grid._is_over = run_id, is_over
        return grid

    def wake(self):
        self.outstanding.wake_all()
        self.sessions.wake_all()

    def submit(self, *overrides):
        config = resolve(parse_config(SCENARIO, overrides))
        return self.records.add(config, submitted_by="ada", sites=SITES).run

    def connect(self):
        known = dict(self.database.read("SELECT site, session FROM sessions"))
        for site in SITES:
            self.sessions.begin(site, known.get(site, b""), version="1")

    def wait_for(self, run, *statuses):
        """Return a run once it is there, or the coordinator is dead."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            record = self.records.get(run)
            if record.status in statuses or self.is_killed:
                return record
            time.sleep(0.01)
        raise TimeoutError(f"{run} is {record.status}")

    def die(self):
        """End the threads, which can write nothing any more."""
        assert self.is_killed
        self.queue._is_closing = True
        self.wake()
        if self.queue._thread.ident is not None:
            self.queue._thread.join()
        self.close()


def train(site, parcel):
    """Answer as a site does: by the app itself."""
    node = {"partition-id": SITES.index(site), "randomness": "simulated"}
    with APP:
        return make_parcel(app(make_message(parcel, bytes(32)), make_context(node)))


def play(deployed, run, *statuses, work=train):
    deployed.connect()
    deployed.queue.start()
    with Agents(deployed, SITES, work):
        return deployed.wait_for(run, *statuses)


def close(deployed):
    deployed.queue.close()
    deployed.close()


def read_model(deployed, run):
    return (deployed.queue.get_path(run) / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    deployed = Deployed(tmp_path_factory.mktemp("undisturbed"))
    run = deployed.submit()
    record = play(deployed, run, "finished", "failed")
    close(deployed)
    path = deployed.queue.get_path(run)
    return SimpleNamespace(record=record, model=read_model(deployed, run), path=path)


def test_run_finishes_and_leaves_nothing_in_the_spool(tmp_path):
    deployed = Deployed(tmp_path)
    record = play(deployed, deployed.submit(), "finished", "failed")
    close(deployed)
    assert (record.status, record.reason, record.round) == ("finished", "", 3)
    assert [path for path in (tmp_path / "spool").rglob("*") if path.is_file()] == []


def test_costs_of_a_deployed_run_are_bytes_and_no_seconds(undisturbed):
    costs = load_costs(undisturbed.path)
    assert [list(cost.sites) for cost in costs] == [list(SITES)] * 4
    assert {cost.coordinator_seconds for cost in costs} == {None}
    lines = (undisturbed.path / "metrics.jsonl").read_text().splitlines()
    for cost, line in zip(costs[1:], map(json.loads, lines), strict=True):
        assert cost.total == SiteCost(bytes_up=line["bytes_up"], bytes_down=line["bytes_down"])


STEPS = ["submit", "begin", "tasks", "reply", "round", "forget", "end"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("state", ["written", "committed"])
@pytest.mark.parametrize("step", STEPS)
def test_killed_coordinator_ends_with_the_same_model(tmp_path, undisturbed, step, state):
    first = Deployed(tmp_path, kill_at=f"{step}-{state}")
    with suppress(Killed):
        play(first, first.submit(), "finished", "failed")
    first.die()
    again = Deployed(tmp_path)
    runs = again.records.list()
    run = runs[0].run if runs else again.submit()
    record = play(again, run, "finished", "failed")
    close(again)
    assert record.status == undisturbed.record.status == "finished"
    assert read_model(again, run) == undisturbed.model


def test_closed_coordinator_goes_on_where_it_was(tmp_path, undisturbed):
    first = Deployed(tmp_path)
    run = first.submit()
    play(first, run, "running")
    close(first)
    again = Deployed(tmp_path)
    assert again.records.get(run).status == "running"
    assert play(again, run, "finished", "failed").sitting == 1
    close(again)
    assert read_model(again, run) == undisturbed.model


def test_stopped_run_is_resumed_in_another_sitting(tmp_path):
    deployed = Deployed(tmp_path)
    run = deployed.submit()
    deployed.queue.start()
    deployed.connect()
    with Agents(deployed, SITES, lambda site, parcel: None):
        deployed.wait_for(run, "running")
        assert deployed.queue.stop(run, "ada") == "stopped"
    assert deployed.records.get(run).reason == "stopped by ada"
    deployed.queue.resume(run)
    with Agents(deployed, SITES, train):
        assert deployed.wait_for(run, "finished", "failed").status == "finished"
    assert RunDirectory.resume(deployed.queue.get_path(run)).state.sittings == 2
    close(deployed)


def test_queued_run_is_stopped_without_beginning(tmp_path):
    deployed = Deployed(tmp_path)
    run = deployed.submit()
    assert deployed.queue.stop(run, "ada") == "stopped"
    assert deployed.records.find_next() is None
    close(deployed)


def test_finished_run_is_not_resumed(tmp_path):
    deployed = Deployed(tmp_path)
    run = deployed.submit()
    deployed.records.end(run, "finished")
    with pytest.raises(ConfigError, match="is finished"):
        deployed.queue.resume(run)
    close(deployed)


def test_runs_go_in_the_order_of_submission(tmp_path):
    records = Deployed(tmp_path)
    runs = [records.submit() for _ in range(3)]
    assert [record.run for record in records.records.list()] == runs
    assert [run.rpartition("-")[2] for run in runs] == ["1", "2", "3"]
    records.records.begin(runs[1], roster=b"", id_=bytes(16))
    assert records.records.find_next().run == runs[1]
    close(records)


def test_three_void_rounds_in_a_row_fail_a_run_that_can_be_resumed(tmp_path):
    def refuse(site, parcel):
        reply = train(site, parcel)
        if parcel.message_type == "train":
            reply.arrays["arrays"]["parameters"][:] = float("nan")
        return reply

    deployed = Deployed(tmp_path)
    run = deployed.submit("federation.rounds=9")
    record = play(deployed, run, "finished", "failed", work=refuse)
    assert (record.status, record.round) == ("failed", 3)
    assert "3 rounds in a row" in record.reason
    deployed.queue.resume(run)
    with Agents(deployed, SITES, train):
        assert deployed.wait_for(run, "finished").round == 9
    close(deployed)


def test_sites_that_do_not_come_end_a_run_in_words(tmp_path):
    deployed = Deployed(tmp_path)
    run = deployed.submit()
    deployed.make_grid = lambda wait_for_sites: Coordinator.make_grid(deployed, wait_for_sites=0.1)
    deployed.queue.start()
    record = deployed.wait_for(run, "failed")
    close(deployed)
    assert "sites a, b, c were not connected" in record.reason


def test_small_random_cohort_is_no_void_round():
    text = SCENARIO.replace("round_timeout", "site_sample_rate = 0.5\nround_timeout")
    config = parse_config(text)
    assert is_small_cohort({"cohort": 0, "survivors": 0}, config)
    assert is_void({"cohort": 2, "survivors": 0}, config)
    assert not is_void({"cohort": 2, "survivors": 2}, config)

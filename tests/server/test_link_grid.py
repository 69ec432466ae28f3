"""A run's messages reach sites and come back in order, and do so again after a kill at any step."""

import threading
from contextlib import suppress

import numpy as np
import pytest

from fedtrain.errors import RunFailedError
from fedtrain.link.parcel import Parcel
from fedtrain.protocol import LEFT, NO_ANSWER
from server.faults import RunInterrupted
from tests.server.coordinators import (
    Agents,
    Coordinator,
    Killed,
    echo,
    make_messages,
    read_reply,
)

SITES = ("a", "b")
LARGE = 20_000  # float32: more than fits inline
WHOLE = [("a", [0.0, 2.0, 4.0, 6.0]), ("b", [0.0, 2.0, 4.0, 6.0])]


@pytest.fixture
def coordinator(tmp_path):
    coordinator = Coordinator(tmp_path)
    yield coordinator
    coordinator.close()


def exchange(coordinator, *, size=4, timeout=30, **options):
    grid = coordinator.make_grid()
    messages = make_messages(coordinator.nodes, size=size, **options)
    return [read_reply(reply) for reply in grid.send_and_receive(messages, timeout=timeout)]


def answer_but_not(silent):
    return lambda site, parcel: None if site in silent else echo(site, parcel)


def test_replies_come_in_the_order_of_the_messages(coordinator):
    with Agents(coordinator, reversed(SITES), echo):
        assert exchange(coordinator) == WHOLE


def test_large_contents_cross_through_files(coordinator):
    with Agents(coordinator, SITES, echo):
        replies = exchange(coordinator, size=LARGE)
    assert [(site, values[-1]) for site, values in replies] == [("a", 39998.0), ("b", 39998.0)]


def test_bytes_of_each_site_are_counted_both_ways(coordinator):
    grid = coordinator.make_grid()
    with Agents(coordinator, SITES, answer_but_not("a")):
        list(grid.send_and_receive(make_messages(coordinator.nodes, size=5), timeout=0.3))
    counted = grid.meter.take()
    assert [(one.bytes_down, one.bytes_up) for one in (counted["a"], counted["b"])] == [
        (20, 0),
        (20, 20),
    ]


def test_equal_contents_are_spooled_once(coordinator, tmp_path):
    grid = coordinator.make_grid()
    grid.send_and_receive(make_messages(coordinator.nodes, size=LARGE), timeout=30)
    assert len(list((tmp_path / "spool" / "contents").iterdir())) == 1
    assert coordinator.outstanding.count() == 2


def test_site_that_is_late_is_closed_with_no_answer(coordinator):
    with Agents(coordinator, SITES, answer_but_not("a")):
        assert exchange(coordinator, timeout=0.2) == [NO_ANSWER[0], WHOLE[1]]


def test_exchange_is_over_before_the_deadline_once_all_have_answered(coordinator):
    with Agents(coordinator, SITES, echo):
        assert exchange(coordinator, timeout=10**6) == WHOLE


def test_error_of_a_site_is_its_code_and_one_line(coordinator):
    def fail(site, parcel):
        return Parcel(parcel.message_type, error=(107, "policy:\n min" + "x" * 1000))

    grid = coordinator.make_grid()
    with Agents(coordinator, SITES, fail):
        replies = list(grid.send_and_receive(make_messages(coordinator.nodes), timeout=30))
    assert {reply.error.code for reply in replies} == {107}
    assert all(r.error.reason.startswith("policy: min") for r in replies)
    assert all(len(reply.error.reason) == 200 for reply in replies)


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"\xff" * 5000,
        Parcel("evaluate"),
        Parcel("train.secagg_share"),
    ],
)
def test_reply_that_cannot_be_read_is_an_error_in_its_sites_name(coordinator, reply):
    with Agents(coordinator, SITES, lambda site, parcel: reply):
        assert exchange(coordinator) == [104, 104]


def test_site_that_is_no_member_is_not_waited_for(coordinator):
    coordinator.members = {"b"}
    with Agents(coordinator, ("b",), echo):
        assert exchange(coordinator, timeout=10**6) == [LEFT[0], WHOLE[1]]


def test_site_that_is_revoked_meanwhile_is_not_waited_for(coordinator):
    def revoke_other(site, parcel):
        coordinator.members = {"b"}
        coordinator.outstanding.answer_for_strangers({"b"}, LEFT)
        return echo(site, parcel)

    with Agents(coordinator, ("b",), revoke_other):
        assert exchange(coordinator, timeout=10**6) == [LEFT[0], WHOLE[1]]


def test_nodes_are_those_of_sites_that_are_all_connected(coordinator):
    grid = coordinator.make_grid(wait_for_sites=60)
    timer = threading.Timer(0.05, lambda: coordinator.sessions.begin("b", b"", version="1"))
    coordinator.sessions.begin("a", b"", version="1")
    timer.start()
    assert list(grid.get_node_ids()) == [2, 3]
    timer.join()


def test_sites_that_do_not_come_are_named(coordinator):
    coordinator.sessions.begin("a", b"", version="1")
    with pytest.raises(RunFailedError, match=r"sites b were not connected.*wait_for_sites"):
        coordinator.make_grid(wait_for_sites=0.05).get_node_ids()


def test_sites_that_were_described_are_not_waited_for(coordinator):
    with Agents(coordinator, SITES, echo):
        exchange(coordinator, kind="query.describe")
    assert list(coordinator.make_grid().get_node_ids()) == [2, 3]


def test_interrupted_run_leaves_its_exchange(coordinator):
    def stop(site, parcel):
        coordinator.is_over = True
        coordinator.outstanding.wake_all()

    with Agents(coordinator, SITES, stop), pytest.raises(RunInterrupted):
        exchange(coordinator, timeout=10**6)


def test_what_is_done_with_a_replys_arrays_does_not_reach_its_file(coordinator, tmp_path):
    grid = coordinator.make_grid()
    with Agents(coordinator, SITES, echo):
        replies = grid.send_and_receive(make_messages(coordinator.nodes, size=LARGE), timeout=30)
        path = next((tmp_path / "spool" / "replies").iterdir(), None)
        for reply in replies:
            array = reply.content["arrays"]["parameters"].numpy()
            array += 1
    files = list((tmp_path / "spool" / "replies").iterdir())
    assert path is None or path in files
    assert all(np.frombuffer(p.read_bytes()[-4 * LARGE :], np.float32)[0] == 0.0 for p in files)


STEPS = [
    (f"{name}-{state}", size)
    for name, size in (("tasks", LARGE), ("reply", 4), ("reply", LARGE), ("errors", LARGE))
    for state in ("written", "committed")
] + [("forget-written", LARGE), ("forget-committed", LARGE)]


@pytest.mark.parametrize(("step", "size"), STEPS)
def test_killed_coordinator_gets_the_same_replies_again(tmp_path, step, size):
    sites = ("a", "b", "c")

    def play(coordinator, silent):
        grid = coordinator.make_grid()
        grid.begin_rounds(0)
        results = []
        with Agents(coordinator, sites, answer_but_not(silent)):
            for round_ in (1, 2):
                messages = make_messages(coordinator.nodes, size=size, round=round_)
                replies = grid.send_and_receive(messages, timeout=0.25)
                results.append([read_reply(reply) for reply in replies])
                grid.begin_rounds(round_)
        return results

    undisturbed = Coordinator(tmp_path / "one", sites)
    expected = play(undisturbed, "c")
    first = Coordinator(tmp_path / "two", sites, kill_at=step)
    with suppress(Killed):
        play(first, "c")
    assert first.is_killed
    first.close()
    again = Coordinator(tmp_path / "two", sites)
    assert play(again, "c") == expected
    assert again.outstanding.count() == 0
    for coordinator in (undisturbed, again):
        coordinator.close()


def test_exchange_that_was_closed_gives_what_it_was_closed_with(tmp_path):
    first = Coordinator(tmp_path)
    with Agents(first, SITES, answer_but_not("a")):
        closed = exchange(first, timeout=0.2)
    first.close()
    again = Coordinator(tmp_path)
    with Agents(again, SITES, echo) as agents:
        assert exchange(again) == closed == [NO_ANSWER[0], WHOLE[1]]
        assert agents.asked == []
    again.close()


def test_restarted_coordinator_asks_before_its_run_goes_on(tmp_path):
    first = Coordinator(tmp_path)
    first.make_grid().send_and_receive(make_messages(first.nodes, size=LARGE), timeout=30)
    first.close()
    again = Coordinator(tmp_path)
    with Agents(again, SITES, echo) as agents:
        assert exchange(again, size=LARGE)[0][0] == "a"
        assert sorted(agents.asked) == ["a", "b"]
    again.close()


def test_forgotten_rounds_leave_no_file(coordinator, tmp_path):
    grid = coordinator.make_grid()
    grid.begin_rounds(0)
    with Agents(coordinator, SITES, echo):
        list(grid.send_and_receive(make_messages(coordinator.nodes, size=LARGE), timeout=30))
    grid.begin_rounds(1)
    assert [path for path in (tmp_path / "spool").rglob("*") if path.is_file()] == []

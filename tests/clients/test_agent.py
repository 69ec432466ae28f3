"""The agent over real sockets and mutual TLS, with a small app."""

import numpy as np
import pytest

from clients.agent_folder import hold_lock, open_agent_folder
from clients.agent_settings import AgentSettings
from clients.agent_status import load_status
from clients.control import Wish, write_wish
from clients.outbox import Outbox
from fedtrain.errors import FedtrainError, SiteError
from fedtrain.link.faults import ContractError, RefusedError, RevokedError
from fedtrain.membership.federation import approve, revoke
from fedtrain.membership.kits import install_kit
from fedtrain.membership.records import COORDINATOR, SITE_ROLE
from fedtrain.membership.requests import create_request
from tests.clients.agents import App, make_task, running
from tests.clients.coordinator import Coordinator, make_site
from tests.link.deployment import answering_with, tunnel
from tests.membership.members import full_disk

LARGE = 300_000  # numbers of a model that does not fit into a poll


def test_task_is_answered_and_acknowledged(site, coordinator):
    with running(site) as agent:
        reply = coordinator.get_reply(coordinator.ask(make_task()))
        np.testing.assert_array_equal(
            reply.arrays["arrays"]["model"], np.arange(100, dtype=np.float32) * 2
        )
        coordinator.ask(make_task(101))
        coordinator.wait(lambda: agent.status.tasks == 2)
    assert agent.error is None
    assert Outbox(agent.folder.outbox).count() == 0


def test_large_contents_cross_in_chunks(site, coordinator):
    with running(site) as agent:
        reply = coordinator.get_reply(coordinator.ask(make_task(LARGE)))
        assert reply.arrays["arrays"]["model"].shape == (LARGE,)
        assert agent.status.bytes_down >= 4 * LARGE
        assert agent.status.bytes_up >= 4 * LARGE
    assert not list(agent.folder.incoming.iterdir())


def test_agent_works_through_a_proxy(site, coordinator, deployment, monkeypatch):
    monkeypatch.delenv("no_proxy", raising=False)
    seen = []
    with answering_with(lambda raw: tunnel(raw, seen)) as proxy:
        with running(site, settings=AgentSettings(proxy=proxy)):
            reply = coordinator.get_reply(coordinator.ask(make_task(LARGE)))
        assert reply.arrays["arrays"]["model"].shape == (LARGE,)
    assert set(seen) == {f"CONNECT {deployment.address} HTTP/1.1".encode()}


def test_connection_that_is_cut_in_a_download_goes_on_where_it_was(site, coordinator):
    coordinator.cuts = [2**20]
    with running(site):
        task = coordinator.ask(make_task(LARGE * 4))
        coordinator.get_reply(task)
    assert coordinator.downloaded == len(coordinator.contents[task])


def test_connection_that_is_cut_in_an_upload_goes_on_where_it_was(site, coordinator):
    with running(site) as agent:
        agent.app.may_end.clear()
        task = coordinator.ask(make_task(LARGE * 4))
        coordinator.wait(agent.app.begun.is_set)
        coordinator.cuts = [2**20]
        agent.app.may_end.set()
        coordinator.get_reply(task)
    assert coordinator.uploaded == len(coordinator.replies[task])
    assert agent.app.asked == 1


def test_session_outlives_a_task_that_is_longer_than_it(site, coordinator):
    with running(site) as agent:
        agent.app.may_end.clear()
        task = coordinator.ask(make_task())
        coordinator.wait(agent.app.begun.is_set)
        polls = coordinator.polls
        coordinator.wait(lambda: coordinator.polls >= polls + 2, 3 * coordinator.poll_seconds)
        agent.app.may_end.set()
        coordinator.get_reply(task)
    assert len(coordinator.hellos) == 1


def test_task_that_comes_again_is_answered_with_the_same_bytes(site, coordinator):
    with running(site) as agent:
        task = coordinator.ask(make_task())
        coordinator.get_reply(task)
    first = coordinator.replies.pop(task)
    agent_folder = agent.folder
    Outbox(agent_folder.outbox).put(task, [memoryview(first)])  # the acknowledgement was lost
    with running(site) as again:
        coordinator.get_reply(task)
    assert coordinator.replies[task] == first
    assert again.app.asked == 0


def test_coordinator_that_restarts_is_found_again(site, deployment):
    coordinator = Coordinator(deployment)
    with running(site) as agent:
        coordinator.wait(lambda: agent.status.missing != "")
        assert "does not answer" in agent.status.missing
        assert "since" in agent.status.missing
        for size in (10, 20):
            with coordinator.serving():
                coordinator.get_reply(coordinator.ask(make_task(size)))
    assert agent.error is None


def test_agent_goes_on_with_its_session_after_a_kill(site, coordinator):
    with running(site):
        coordinator.wait(lambda: coordinator.session)
        held = coordinator.session
    open_agent_folder(site).save_session(held)
    coordinator.session = held  # nobody left: the process was killed
    with running(site) as again:
        coordinator.wait(lambda: coordinator.session not in (held, b""))
    assert again.error is None


def test_second_agent_of_a_site_gives_up_and_says_why(site, coordinator):
    coordinator.session = bytes(16)
    with running(site) as agent:
        agent.thread.join(10)
        assert not agent.thread.is_alive()
    assert isinstance(agent.error, RefusedError)
    assert load_status(agent.folder.status).state == "failed"
    assert "another agent" in load_status(agent.folder.status).missing


def test_second_agent_in_one_folder_is_refused(site, coordinator):
    with hold_lock(open_agent_folder(site)), running(site) as agent:
        agent.thread.join(5)
    assert isinstance(agent.error, SiteError)
    assert not coordinator.hellos


def test_revoked_site_is_told_and_ends(site, deployment, coordinator):
    with running(site) as agent:
        coordinator.wait(lambda: coordinator.polls)
        revoke(deployment.root, "berlin")
        agent.thread.join(3 * coordinator.poll_seconds)
        assert not agent.thread.is_alive()
    assert isinstance(agent.error, RevokedError)
    assert "revoked" in load_status(agent.folder.status).missing


def test_newer_membership_is_adopted(site, deployment, coordinator):
    with running(site) as agent:
        coordinator.wait(lambda: coordinator.polls)
        make_site(deployment, "clara")
        version = deployment.membership.membership.version
        coordinator.wait(lambda: agent.status.membership_version == version)
    assert len(list((site / "rosters").iterdir())) == 2


def test_older_membership_of_the_coordinator_is_not_adopted(site, deployment, coordinator):
    coordinator.is_behind = deployment.membership
    make_site(deployment, "clara")
    deployment.install(site)
    with running(site) as agent:
        coordinator.get_reply(coordinator.ask(make_task()))
    version = coordinator.is_behind.membership.version
    assert agent.status.membership_version == version + 1


def test_other_contract_ends_the_agent_with_both_versions(site, coordinator):
    coordinator.contract, coordinator.version = 2, "9.8.7"
    with running(site) as agent:
        agent.thread.join(10)
    assert isinstance(agent.error, ContractError)
    assert "0.1.0" in str(agent.error)
    assert "9.8.7" in str(agent.error)


def test_paused_site_takes_no_task_until_it_is_resumed(site, coordinator):
    write_wish(open_agent_folder(site), Wish.PAUSE)
    with running(site) as agent:
        task = coordinator.ask(make_task())
        coordinator.wait(lambda: agent.status.state == "paused" and coordinator.polls)
        assert task not in coordinator.replies
        write_wish(agent.folder, Wish.RUN)
        coordinator.get_reply(task)
    assert coordinator.paused[0]


def test_leave_ends_the_agent_and_tells_the_coordinator(site, coordinator):
    with running(site) as agent:
        coordinator.wait(lambda: coordinator.polls)
        write_wish(agent.folder, Wish.LEAVE)
        agent.thread.join(5)
        assert not agent.thread.is_alive()
    assert coordinator.left == 1
    assert load_status(agent.folder.status).state == "stopped"


def test_stop_in_a_task_hands_its_reply_in(site, coordinator):
    with running(site) as agent:
        agent.app.may_end.clear()
        task = coordinator.ask(make_task())
        coordinator.wait(agent.app.begun.is_set)
        agent.stop.is_wanted = True
        agent.app.may_end.set()
        agent.thread.join(10)
    assert task in coordinator.replies
    assert coordinator.left == 1


class Failing(App):
    def __call__(self, message, context):
        raise ValueError("patient 17 of /secret/ward.csv has no age")


def test_nothing_of_an_exception_leaves_the_site(site, coordinator):
    with running(site, Failing()):
        task = coordinator.ask(make_task())
        reply = coordinator.get_reply(task)
    assert (reply.message_type, reply.error[0]) == ("train", 199)
    assert b"secret" not in coordinator.replies[task]
    assert b"patient" not in coordinator.replies[task]


@pytest.mark.parametrize("content", [b"x", b"\xff" * 100, bytes(2**20)])
def test_task_that_is_no_parcel_is_answered_by_a_public_code(site, coordinator, content):
    with running(site) as agent:
        reply = coordinator.get_reply(coordinator.ask(content))
    assert reply.error[0] == 104
    assert agent.app.asked == 0


def test_task_beyond_the_largest_content_is_answered_by_a_public_code(site, coordinator):
    coordinator.largest = 2**20
    with running(site):
        reply = coordinator.get_reply(coordinator.ask(make_task(LARGE)))
    assert reply.error[0] == 104
    assert coordinator.downloaded == 0


def test_full_disk_costs_one_answer_and_heals(site, coordinator):
    with running(site) as agent:
        with full_disk(2**20):
            reply = coordinator.get_reply(coordinator.ask(make_task(LARGE)))
            assert reply.error[0] == 199
            assert "free space" in agent.status.last_error
        reply = coordinator.get_reply(coordinator.ask(make_task(LARGE + 1)))
        assert reply.error is None


def test_full_disk_does_not_lose_the_session(site, deployment):
    coordinator = Coordinator(deployment)
    with running(site) as agent:
        coordinator.wait(lambda: agent.status.missing)
        with full_disk(8), coordinator.serving():
            coordinator.wait(lambda: "cannot be written" in agent.status.missing)
        with coordinator.serving():
            coordinator.get_reply(coordinator.ask(make_task()))


def test_coordinator_with_a_renewed_key_is_found_by_a_newer_membership(site, deployment):
    version, folder = deployment.membership.membership.version, deployment.coordinator
    coordinator = Coordinator(deployment)
    request = create_request(folder, "center", COORDINATOR, deployment.address)
    install_kit(folder, approve(deployment.root, request))
    with coordinator.serving(), running(site) as agent:
        coordinator.get_reply(coordinator.ask(make_task()))
    assert agent.status.membership_version == version + 1


def test_site_with_a_renewed_key_waits_for_its_kit(site, deployment, coordinator):
    with running(site) as agent:
        coordinator.wait(lambda: coordinator.polls)
        kit = approve(deployment.root, create_request(site, "berlin", SITE_ROLE))
        coordinator.wait(lambda: agent.status.missing)
        install_kit(site, kit)
        coordinator.get_reply(coordinator.ask(make_task()))
    assert agent.error is None


def test_clock_that_differs_is_in_the_status(site, coordinator):
    coordinator.skew_ms = -300_000
    with running(site) as agent:
        coordinator.wait(lambda: agent.status.clock_skew_ms is not None)
    assert agent.status.clock_skew_ms == pytest.approx(-300_000, abs=2000)


def test_status_names_run_and_round(site, coordinator):
    with running(site) as agent:
        coordinator.get_reply(coordinator.ask(make_task()))
        coordinator.wait(lambda: agent.status.state == "waiting")
    assert (agent.status.run, agent.status.round, agent.status.task) == ("heart-1", 3, "train")


def test_site_without_a_kit_says_what_to_do(tmp_path):
    from clients.custody import create_custody
    from clients.running import run_agent

    create_custody(tmp_path / "berlin", "berlin")
    with pytest.raises(FedtrainError, match="request"):
        run_agent(tmp_path / "berlin")


def test_site_that_the_coordinator_does_not_know_yet_waits_for_it(site, deployment, coordinator):
    coordinator.is_behind = deployment.membership
    late = make_site(deployment, "clara")
    with running(late) as agent:
        coordinator.wait(lambda: "does not list this site" in agent.status.missing)
        coordinator.is_behind = None
        coordinator.get_reply(coordinator.ask(make_task()))
    assert agent.error is None

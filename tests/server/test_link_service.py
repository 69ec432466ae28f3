"""The calls of sites over real sockets with mutual TLS."""

import hashlib
import threading
import time

import grpc
import pytest

from fedtrain.link import link_pb2
from fedtrain.protocol import LEFT
from server.store import Content, Task, compute_task_id
from tests.server.deployment import make_reply

RUN = bytes(range(16))
LARGE = bytes(range(256)) * 12_000  # three chunks
Status = grpc.StatusCode


@pytest.fixture
def site(deployment, coordinator):
    with deployment.site("a") as site:
        site.hello()
        yield site


def ask(coordinator, site, data=b"model"):
    """Ask one site; return the task."""
    digest = hashlib.sha256(data).digest()
    inline = data if len(data) <= 2**16 else None
    if inline is None:
        coordinator._spool.save_content(digest, [memoryview(data)])
    id_ = compute_task_id(RUN, site, "train", digest)
    task = Task(id_, RUN, 1, site, Content(len(data), digest, inline), 60.0)
    coordinator._outstanding.open_exchange([task])
    return task


def get_reply(coordinator, task):
    reply = coordinator._store.load_reply(task.id)
    if reply is None or reply.content.inline is not None:
        return None if reply is None else reply.content.inline
    return coordinator._spool.get_reply(task.id, reply.content.digest).read_bytes()


def get_code(call, *args, **options):
    """Return the status that a call ends with."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*args, **options)
    return caught.value.code()


def test_task_comes_with_a_poll_and_its_reply_goes_with_the_next(coordinator, site):
    task = ask(coordinator, "a")
    found = site.poll(wait=5).task
    assert (found.id, found.content.inline) == (task.id, b"model")
    assert 0 < found.deadline_ms <= 60_000
    site.poll(reply=make_reply(task.id, b"update"))
    assert get_reply(coordinator, task) == b"update"


def test_waiting_poll_gets_its_task_at_once(coordinator, site):
    waiting = site.start_poll(5)
    time.sleep(0.1)
    begun = time.monotonic()
    task = ask(coordinator, "a")
    assert waiting.result().task.id == task.id
    assert time.monotonic() - begun < 2


def test_same_task_comes_again_until_it_is_answered(coordinator, site):
    task = ask(coordinator, "a")
    assert [site.poll().task.id for _ in range(2)] == [task.id, task.id]
    site.poll(reply=make_reply(task.id, b"update"))
    assert not site.poll().HasField("task")


def test_reply_that_is_sent_twice_counts_once(coordinator, site):
    task = ask(coordinator, "a")
    site.poll(reply=make_reply(task.id, b"first"))
    site.poll(reply=make_reply(task.id, b"second"))
    assert get_reply(coordinator, task) == b"first"


def test_paused_site_gets_no_task(coordinator, site):
    ask(coordinator, "a")
    assert not site.poll(paused=True).HasField("task")
    assert coordinator.sessions.describe(["a"])[0].state == "paused"


def test_task_of_another_site_does_not_exist(coordinator, site):
    task = ask(coordinator, "b")
    assert not site.poll().HasField("task")
    assert get_code(site.download, task.id) is Status.OUT_OF_RANGE
    site.poll(reply=make_reply(task.id, b"forged"))
    assert site.find_upload(task.id, LARGE).complete
    assert get_reply(coordinator, task) is None


@pytest.mark.parametrize("wrong", [{"size": 7}, {"digest": bytes(32)}])
def test_reply_that_is_not_what_it_says_is_refused(coordinator, site, wrong):
    task = ask(coordinator, "a")
    reply = make_reply(task.id, b"update", **wrong)
    assert get_code(site.poll, reply=reply) is Status.OUT_OF_RANGE
    assert get_reply(coordinator, task) is None


def test_large_content_is_downloaded_from_any_offset(coordinator, site):
    task = ask(coordinator, "a", LARGE)
    found = site.poll().task
    assert (found.content.size, found.content.inline) == (len(LARGE), b"")
    assert b"".join(chunk.data for chunk in site.download(task.id)) == LARGE
    rest = site.download(task.id, offset=1_500_000)
    assert rest[0].offset == 1_500_000
    assert b"".join(chunk.data for chunk in rest) == LARGE[1_500_000:]


def test_offset_behind_the_end_is_refused(coordinator, site):
    task = ask(coordinator, "a", LARGE)
    assert get_code(site.download, task.id, offset=len(LARGE) + 1) is Status.OUT_OF_RANGE


def test_upload_goes_on_where_it_was_cut_off(coordinator, site):
    task = ask(coordinator, "a")
    reply = site.upload(task.id, LARGE, end=2**20 + 5)
    assert (reply.offset, reply.complete) == (2**20 + 5, False)
    assert site.find_upload(task.id, LARGE).offset == 2**20 + 5
    assert site.upload(task.id, LARGE, offset=2**20 + 5).complete
    assert get_reply(coordinator, task) == LARGE


def test_upload_goes_on_after_a_restart_of_the_coordinator(deployment):
    with deployment.serving() as coordinator, deployment.site("a") as site:
        task, session = ask(coordinator, "a"), site.hello().session
        site.upload(task.id, LARGE, end=2**20)
    with deployment.serving() as coordinator, deployment.site("a") as site:
        site.session = session
        assert site.find_upload(task.id, LARGE).offset == 2**20
        assert site.upload(task.id, LARGE, offset=2**20).complete
        assert get_reply(coordinator, task) == LARGE


def test_upload_that_was_all_there_before_a_kill_is_taken(deployment):
    with deployment.serving() as coordinator, deployment.site("a") as site:
        task = ask(coordinator, "a")
        digest = hashlib.sha256(LARGE).digest()
        coordinator._spool.get_reply(task.id, digest).write_bytes(LARGE)
        site.hello()
        assert site.find_upload(task.id, LARGE).complete
        assert get_reply(coordinator, task) == LARGE


def test_upload_with_another_digest_begins_anew(coordinator, site):
    task = ask(coordinator, "a")
    site.upload(task.id, LARGE, end=2**20)
    other = LARGE[::-1]
    assert site.find_upload(task.id, other).offset == 0
    assert site.upload(task.id, other).complete
    assert get_reply(coordinator, task) == other


def test_upload_that_is_not_what_it_says_is_refused_and_begins_anew(coordinator, site):
    task = ask(coordinator, "a")
    changed = b"x" + LARGE[1:]
    code = get_code(site.upload, task.id, changed, declared=LARGE)
    assert code is Status.OUT_OF_RANGE
    assert site.find_upload(task.id, LARGE).offset == 0
    assert get_reply(coordinator, task) is None


def test_chunk_with_a_gap_before_it_is_refused(coordinator, site):
    task = ask(coordinator, "a")
    assert get_code(site.upload, task.id, LARGE, offset=100) is Status.OUT_OF_RANGE


def test_call_without_a_session_is_refused(deployment, coordinator):
    with deployment.site("a") as site:
        assert get_code(site.poll) is Status.ABORTED


def test_second_agent_is_refused(deployment, coordinator, site):
    site.poll()
    with deployment.site("a") as second:
        assert get_code(second.hello) is Status.ALREADY_EXISTS


def test_restarted_agent_takes_over_and_the_old_poll_ends(deployment, coordinator, site):
    waiting = site.start_poll(5)
    time.sleep(0.1)
    with deployment.site("a") as restarted:
        restarted.hello(site.session)
        assert waiting.exception(2).code() is Status.ABORTED
        restarted.poll()


def test_other_contract_is_refused_with_both_versions(deployment, coordinator):
    with (
        deployment.site("a") as site,
        pytest.raises(grpc.RpcError, match=r"contract 1.*contract 9"),
    ):
        site.hello(contract=9)


def test_operator_is_no_site(deployment, coordinator):
    with deployment.site("researcher") as site:
        assert get_code(site.hello) is Status.PERMISSION_DENIED


def test_agent_that_leaves_is_offline_at_once(coordinator, site):
    site.stub.Leave(link_pb2.LeaveRequest(session=site.session), timeout=10)
    assert coordinator.sessions.describe(["a"])[0].state == "offline"
    assert get_code(site.poll) is Status.ABORTED


def test_revoked_site_is_cut_while_it_waits(deployment, coordinator, site):
    waiting = site.start_poll(5)
    time.sleep(0.1)
    with deployment.operator() as admin:
        admin.install(deployment.revoke("a"))
    assert waiting.exception(2).code() is Status.PERMISSION_DENIED
    assert get_code(site.poll) is Status.PERMISSION_DENIED


def test_what_a_revoked_site_was_asked_is_closed_at_once(deployment, coordinator):
    task = ask(coordinator, "a")
    with deployment.operator() as admin:
        admin.install(deployment.revoke("a"))
    assert coordinator._store.load_reply(task.id).error == LEFT


def test_membership_is_handed_to_sites(deployment, coordinator, site):
    reply = site.stub.GetMembership(link_pb2.GetMembershipRequest(), timeout=10)
    assert reply.membership == deployment.read_membership()


def test_silent_upload_is_ended(deployment, coordinator, site):
    task = ask(coordinator, "a")
    coordinator._watch._seconds = 0.2
    ended = threading.Event()

    def silent():
        yield link_pb2.UploadChunk(header=site._make_header(task.id, LARGE))
        ended.wait(10)

    call = site.stub.Upload.future(silent(), timeout=30)
    until = time.monotonic() + 10
    while not call.done() and time.monotonic() < until:
        coordinator._watch.look()
        time.sleep(0.05)
    ended.set()
    assert call.code() is Status.CANCELLED


def test_member_with_too_many_calls_is_not_let_in(coordinator, site):
    waiting = [site.start_poll(3) for _ in range(9)]
    codes = {call.code() for call in waiting}
    assert Status.UNAVAILABLE in codes
    assert Status.OK in codes

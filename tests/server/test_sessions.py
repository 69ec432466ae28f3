import threading

import pytest

from server.database import Database
from server.sessions import SecondAgentError, SessionError, Sessions


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def open_sessions(tmp_path, clock):
    databases = []

    def open_():
        databases.append(Database(tmp_path / "link.db"))
        return Sessions(databases[-1], poll_seconds=10, clock=clock, wall_clock=clock)

    yield open_
    for database in databases:
        database.close()


def use(sessions, session):
    sessions.leave_call(sessions.enter(session.site, session.id))


def test_second_agent_is_refused(open_sessions):
    sessions = open_sessions()
    use(sessions, sessions.begin("a", b"", version="1"))
    with pytest.raises(SecondAgentError, match="another agent"):
        sessions.begin("a", b"", version="1")


def test_second_agent_is_refused_after_a_restart_too(open_sessions):
    sessions = open_sessions()
    use(sessions, sessions.begin("a", b"", version="1"))
    with pytest.raises(SecondAgentError):
        open_sessions().begin("a", b"", version="1")


def test_agent_whose_hello_was_answered_by_a_kill_says_it_again(open_sessions):
    sessions = open_sessions()
    first = sessions.begin("a", b"", version="1")
    use(sessions, first)
    sessions.begin("a", first.id, version="1")  # the agent never learns of this one
    assert open_sessions().begin("a", first.id, version="1").site == "a"


def test_session_goes_on_through_a_restart(open_sessions):
    session = open_sessions().begin("a", b"", version="1")
    assert open_sessions().enter("a", session.id).site == "a"


def test_restarted_agent_takes_over_at_once(open_sessions):
    sessions = open_sessions()
    first = sessions.begin("a", b"", version="1")
    use(sessions, first)
    second = sessions.begin("a", first.id, version="1")
    assert first.is_over
    with pytest.raises(SessionError):
        sessions.enter("a", first.id)
    use(sessions, second)


def test_hello_whose_answer_was_lost_is_said_again(open_sessions):
    sessions = open_sessions()
    first = sessions.begin("a", b"", version="1")
    use(sessions, first)
    sessions.begin("a", first.id, version="1")
    again = sessions.begin("a", first.id, version="1")
    use(sessions, again)
    with pytest.raises(SecondAgentError):
        sessions.begin("a", first.id, version="1")


def test_three_polls_of_silence_end_a_session(open_sessions, clock):
    sessions = open_sessions()
    session = sessions.begin("a", b"", version="1")
    clock.now += 29
    use(sessions, session)
    clock.now += 31
    assert sessions.list_online() == set()
    with pytest.raises(SessionError, match="hello again"):
        sessions.enter("a", session.id)


def test_call_in_progress_is_no_silence(open_sessions, clock):
    sessions = open_sessions()
    session = sessions.begin("a", b"", version="1")
    sessions.enter("a", session.id)
    clock.now += 1000
    assert sessions.list_online() == {"a"}


def test_session_of_another_site_is_refused(open_sessions):
    sessions = open_sessions()
    session = sessions.begin("a", b"", version="1")
    with pytest.raises(SessionError):
        sessions.enter("b", session.id)


def test_agent_that_left_may_come_back_or_another(open_sessions):
    sessions = open_sessions()
    sessions.end(sessions.begin("a", b"", version="1"))
    with pytest.raises(SessionError):
        sessions.enter("a", b"")
    assert sessions.begin("a", b"", version="1").id


def test_site_that_is_no_member_is_cut(open_sessions):
    sessions = open_sessions()
    kept, gone = sessions.begin("a", b"", version="1"), sessions.begin("b", b"", version="1")
    assert sessions.cut({"a", "c"}) == ["b"]
    use(sessions, kept)
    with pytest.raises(SessionError):
        sessions.enter("b", gone.id)


def test_change_wakes_who_waits(open_sessions):
    sessions = open_sessions()
    waiter = threading.Thread(target=sessions.wait_for_change, args=(60,))
    waiter.start()
    while waiter.is_alive():
        sessions.begin("a", b"", version="1", clock_ms=0)
        sessions.end(sessions._sessions["a"])
        waiter.join(0.01)
    assert not waiter.is_alive()


def test_states_are_those_that_an_operator_reads(open_sessions, clock):
    sessions = open_sessions()
    sessions.begin("a", b"", version="0.1.0", clock_ms=1_300_000)
    sessions.note_poll(sessions.begin("b", b"", version="1"), is_paused=True)
    sessions.end(sessions.begin("c", b"", version="1"))
    states = sessions.describe(["a", "b", "c", "d"])
    assert [s.state for s in states] == ["online", "paused", "offline", "never"]
    assert (states[0].version, states[0].clock_skew_ms) == ("0.1.0", 300_000)
    assert sessions.list_online() == {"a"}

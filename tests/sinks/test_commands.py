"""How a run is sent, as it is or until it ends."""

import fcntl

import pytest

from fedtrain import cli
from fedtrain.sinks.commands import send_run


class Watcher:
    """A sink that keeps what it is given; after each look it lets the run do something."""

    def __init__(self, then):
        self.seen = []
        self._then = then

    def send(self, run):
        self.seen.append((run.status, run.rounds_done))
        self._then(len(self.seen))
        return run.rounds_done

    def close(self, run):
        self.seen.append(("closed", run.rounds_done))


def test_run_is_followed_until_it_ends(change_state):
    def go_on(looks):
        change_state(**({"round": 12} if looks == 1 else {"round": 15, "status": "finished"}))

    run = change_state(status="running", round=10)
    watcher = Watcher(go_on)
    with (run.path / "checkpoint" / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        send_run(watcher, change_state(), follow=True, poll_seconds=0.001)
    rounds = [("running", 10), ("running", 12), ("finished", 15), ("closed", 15)]
    assert watcher.seen == rounds


def test_run_is_sent_once_without_follow(change_state):
    watcher = Watcher(lambda looks: None)
    run = change_state(status="running", round=10)
    send_run(watcher, run, follow=False)
    assert [what for _, what in watcher.seen] == [10, 10]


def test_killed_run_is_not_waited_for(change_state):
    watcher = Watcher(lambda looks: None)
    run = change_state(status="running", round=10)
    (run.path / "checkpoint" / "lock").touch()
    send_run(watcher, change_state(), follow=True)
    assert watcher.seen == [("killed", 10), ("closed", 10)]


@pytest.mark.parametrize("kind", ["tensorboard", "mlflow"])
def test_folder_that_is_no_run_is_refused(kind, tmp_path, capsys):
    assert cli.main(["sink", kind, str(tmp_path)]) == 3
    assert "not a run directory" in capsys.readouterr().err

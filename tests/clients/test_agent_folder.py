import signal
import subprocess
import sys

import pytest

from clients.agent_folder import hold_lock, is_running, open_agent_folder
from fedtrain.errors import SiteError

HOLDER = """
import sys, time
from pathlib import Path
from clients.agent_folder import hold_lock, open_agent_folder
with hold_lock(open_agent_folder(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that is the agent of a folder."""
    command = [sys.executable, "-c", HOLDER, tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_second_agent_is_refused_and_told_of_the_first(tmp_path, holder):
    with (
        pytest.raises(SiteError, match=f"process id {holder.pid}; stop"),
        hold_lock(open_agent_folder(tmp_path)),
    ):
        pytest.fail("both hold it")


def test_lock_ends_with_the_process_however_that_ends(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    folder = open_agent_folder(tmp_path)
    assert not is_running(folder)
    with hold_lock(folder):
        assert is_running(folder)


def test_asking_whether_an_agent_runs_does_not_start_one(tmp_path):
    folder = open_agent_folder(tmp_path)
    assert not is_running(folder)
    assert not folder.lock.exists()


def test_session_is_found_again(tmp_path):
    open_agent_folder(tmp_path).save_session(bytes(range(16)))
    assert open_agent_folder(tmp_path).load_session() == bytes(range(16))


@pytest.mark.parametrize("content", [b"", b"short", bytes(17)])
def test_damaged_session_is_none(tmp_path, content):
    folder = open_agent_folder(tmp_path)
    (folder.path / "session").write_bytes(content)
    assert folder.load_session() == b""


def test_folder_that_others_can_enter_is_refused(tmp_path):
    open_agent_folder(tmp_path).path.chmod(0o755)
    with pytest.raises(SiteError, match=r"0755.*chmod 700"):
        open_agent_folder(tmp_path)


def test_folders_are_private(tmp_path):
    folder = open_agent_folder(tmp_path)
    modes = {path.stat().st_mode & 0o777 for path in (folder.path, folder.outbox, folder.incoming)}
    assert modes == {0o700}

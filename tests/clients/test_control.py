import pytest

from clients.agent_folder import open_agent_folder
from clients.control import Wish, read_wish, write_wish


@pytest.mark.parametrize("wish", list(Wish))
def test_wish_is_read_back(tmp_path, wish):
    folder = open_agent_folder(tmp_path)
    write_wish(folder, wish)
    assert read_wish(folder) is wish


def test_nothing_said_is_run(tmp_path):
    assert read_wish(open_agent_folder(tmp_path)) is Wish.RUN


@pytest.mark.parametrize("content", [b"", b"pausE", b"\xff\xfe", b"run away"])
def test_words_that_are_not_known_pause(tmp_path, content):
    folder = open_agent_folder(tmp_path)
    folder.control.write_bytes(content)
    assert read_wish(folder) is Wish.PAUSE

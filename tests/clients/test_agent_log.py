import logging

import pytest

from clients import agent_log
from clients.agent_log import logging_at_site
from fedtrain.errors import SiteError

log = logging.getLogger("fedtrain.clients")


def test_lines_go_to_the_file_and_to_standard_error(tmp_path, capsys):
    with logging_at_site(tmp_path / "log.txt"):
        log.info("event key=value")
    assert "event key=value" in (tmp_path / "log.txt").read_text()
    assert "event key=value" in capsys.readouterr().err


def test_log_is_for_its_owner_s_eyes(tmp_path):
    with logging_at_site(tmp_path / "log.txt"):
        log.info("event")
    assert (tmp_path / "log.txt").stat().st_mode & 0o777 == 0o600


def test_log_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(agent_log, "LARGEST_FILE", 1000)
    with logging_at_site(tmp_path / "log.txt"):
        for number in range(500):
            log.info("event number=%d", number)
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) == agent_log.FILES
    assert max(sizes) <= 1000


def test_log_goes_on_where_it_was(tmp_path):
    for number in (1, 2):
        with logging_at_site(tmp_path / "log.txt"):
            log.info("event number=%d", number)
    assert (tmp_path / "log.txt").read_text().count("event") == 2


def test_loggers_are_as_before_afterwards(tmp_path):
    logger = logging.getLogger("fedtrain")
    before = logger.handlers, logger.propagate, logger.level
    with logging_at_site(tmp_path / "log.txt"):
        assert not logger.propagate
    assert (logger.handlers, logger.propagate, logger.level) == before


def test_file_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(SiteError, match="cannot be written"), logging_at_site(tmp_path):
        pytest.fail("it was opened")

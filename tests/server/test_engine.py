import json
import logging
import traceback

import pytest

from fedtrain.errors import ConfigError, RunDirectoryError, RunFailedError
from server.engine import open_run, run_on_engine


def read_state(path):
    return json.loads((path / "state.json").read_text())


def test_open_run_applies_overrides(tmp_path):
    options = {"scenario": "digits", "set": "partition.sites=4 federation.rounds=3", "resume": ""}
    run = open_run(options | {"out": str(tmp_path / "run")})
    assert (run.config.partition.sites, run.config.federation.rounds) == (4, 3)
    assert run.path == tmp_path / "run"


def test_open_run_takes_its_place_from_the_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = open_run({"scenario": "digits", "set": "", "out": "", "resume": ""})
    assert run.path.resolve() == tmp_path / "runs" / "digits"


def test_open_run_needs_a_scenario():
    with pytest.raises(ConfigError, match="names no scenario"):
        open_run({"scenario": "", "out": "x"})


def write_scenario(folder):
    path = folder / "plain.toml"
    path.write_text('[data]\nsource = "sklearn:digits"\n')
    return str(path)


def test_open_run_resumes(tmp_path):
    first = open_run({"scenario": write_scenario(tmp_path), "out": str(tmp_path / "run")})
    first.finish("failed", "cut")
    first.close()
    run = open_run({"scenario": "another", "resume": str(tmp_path / "run")})
    assert run.config == first.config
    assert read_state(tmp_path / "run")["status"] == "running"


def test_open_run_does_not_release_a_private_round_twice(tmp_path):
    open_run({"scenario": "digits", "out": str(tmp_path / "run")}).close()
    for _ in range(2):  # the refusal leaves no lock
        with pytest.raises(RunDirectoryError, match="round 1 already"):
            open_run({"resume": str(tmp_path / "run")})


def test_open_run_refuses_a_directory_in_use(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunDirectoryError, match="not empty"):
        open_run({"scenario": "digits", "out": str(tmp_path)})


def fail(error):
    def run_federation(run):
        raise error from OSError("what lies below")

    return run_federation


def test_failed_run_says_why_without_a_long_traceback(tmp_path):
    options = {"scenario": "digits", "out": str(tmp_path / "run")}
    with pytest.raises(RunFailedError) as caught:
        run_on_engine(options, fail(RunFailedError("2 of 3 sites answered")))
    state = read_state(tmp_path / "run")
    assert (state["status"], state["reason"]) == ("failed", "2 of 3 sites answered")
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "run_failed kind=run-failed message=2 of 3 sites answered" in log
    assert "Traceback" not in log
    printed = "".join(traceback.format_exception(caught.value))
    assert "what lies below" not in printed


def test_unexpected_error_keeps_its_traceback_in_the_log(tmp_path):
    options = {"scenario": "digits", "out": str(tmp_path / "run")}
    with pytest.raises(ZeroDivisionError):
        run_on_engine(options, lambda run: 1 // 0)
    state = read_state(tmp_path / "run")
    assert state["status"] == "failed"
    assert state["reason"] == "ZeroDivisionError; log.txt has the details"
    assert "Traceback" in (tmp_path / "run" / "log.txt").read_text()


def test_run_leaves_no_log_handler_and_no_lock(tmp_path):
    options = {"scenario": write_scenario(tmp_path), "out": str(tmp_path / "run")}
    run_on_engine(options, lambda run: run.finish("finished"))
    handlers = logging.getLogger("fedtrain").handlers
    assert all(isinstance(handler, logging.NullHandler) for handler in handlers)
    open_run({"resume": str(tmp_path / "run")}).close()

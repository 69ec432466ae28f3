import json
import subprocess
import sys

import numpy as np
import pytest

from fedtrain.config import parse_config
from fedtrain.errors import AuditError, RunDirectoryError
from fedtrain.resolution import resolve
from fedtrain.runs import RunDirectory

CONFIG = resolve(parse_config("[federation]\nrounds = 3"))


def make_arrays(value: float) -> dict[str, np.ndarray]:
    return {"parameters": np.full(4, value, np.float32)}


@pytest.fixture
def run(tmp_path):
    directory = RunDirectory.create(tmp_path / "run", CONFIG, fingerprint="abc")
    directory.commit(round=0, arrays=make_arrays(0))
    return directory


def reopen(run: RunDirectory) -> RunDirectory:
    run.close()
    return RunDirectory.resume(run.path)


def test_commit_is_what_resume_finds(run):
    run.commit(round=1, arrays=make_arrays(1), metrics={"round": 1}, seconds=0.5)
    again = reopen(run)
    assert again.state.round == 1
    assert again.state.seconds == 0.5
    assert again.load_checkpoint()["parameters"].tolist() == [1, 1, 1, 1]
    assert again.read_metrics() == [{"round": 1}]


def test_lines_after_the_last_commit_are_cut_off(run):
    run.commit(round=1, arrays=make_arrays(1), metrics={"round": 1})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"round": 2}\n{"rou')
    (run.path / "ledger.jsonl").write_text("half a li")
    (run.path / "checkpoint" / "round-0000002.partial").write_bytes(b"torn")
    again = reopen(run)
    assert again.read_metrics() == [{"round": 1}]
    assert (run.path / "ledger.jsonl").read_text() == ""
    assert not (run.path / "checkpoint" / "round-0000002.partial").exists()


def test_best_model_is_kept_beside_the_last(run):
    run.commit(round=1, arrays=make_arrays(1), metrics={"round": 1}, best_loss=0.2)
    run.commit(round=2, arrays=make_arrays(2), metrics={"round": 2})
    again = reopen(run)
    assert again.load_best().tolist() == [1, 1, 1, 1]
    assert again.load_checkpoint()["parameters"].tolist() == [2, 2, 2, 2]
    assert again.state.best_round == 1


def test_create_refuses_a_folder_in_use(run):
    with pytest.raises(RunDirectoryError, match="--resume"):
        RunDirectory.create(run.path, CONFIG)


def test_resume_refuses_a_folder_without_a_run(tmp_path):
    with pytest.raises(RunDirectoryError, match=r"state\.json"):
        RunDirectory.resume(tmp_path)


def test_resume_refuses_a_changed_config(run):
    path = run.path / "config.toml"
    path.write_text(path.read_text().replace("rounds = 3", "rounds = 4"))
    with pytest.raises(AuditError, match="changed"):
        reopen(run)


def test_resume_refuses_a_damaged_state(run):
    (run.path / "state.json").write_text("{}")
    with pytest.raises(AuditError, match="damaged"):
        reopen(run)


def test_resume_refuses_a_shortened_line_file(run):
    run.commit(round=1, arrays=make_arrays(1), metrics={"round": 1})
    (run.path / "metrics.jsonl").write_text("")
    with pytest.raises(AuditError, match="committed"):
        reopen(run)


def test_damaged_checkpoint_is_refused(run):
    (run.path / str(run.state.checkpoint)).write_bytes(b"torn")
    with pytest.raises(AuditError, match="damaged"):
        reopen(run).load_checkpoint()


def test_second_process_is_refused(run):
    code = (
        "import sys; from pathlib import Path; from fedtrain.runs import RunDirectory;"
        "RunDirectory.resume(Path(sys.argv[1]))"
    )
    done = subprocess.run([sys.executable, "-c", code, run.path], capture_output=True, text=True)
    assert "in use by another process" in done.stderr


def test_full_disk_is_one_line_and_keeps_the_commit(run, tmp_path):
    code = (
        "import resource, signal, sys; import numpy as np; from pathlib import Path;"
        "from fedtrain.runs import RunDirectory; from fedtrain.errors import RunDirectoryError;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "run = RunDirectory.resume(Path(sys.argv[1]));"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "try: run.commit(round=1, arrays={'parameters': np.zeros(10**6, np.float32)})\n"
        "except RunDirectoryError as error: print(error)"
    )
    run.close()
    done = subprocess.run([sys.executable, "-c", code, run.path], capture_output=True, text=True)
    assert "cannot write" in done.stdout, done.stderr
    assert "--resume" in done.stdout
    assert RunDirectory.resume(run.path).load_checkpoint()["parameters"].tolist() == [0, 0, 0, 0]


def test_environment_names_versions_seed_and_fingerprint(run):
    environment = json.loads((run.path / "environment.json").read_text())
    assert environment["versions"]["torch"].startswith("2.")
    assert environment["seed"] == 0
    assert environment["data_fingerprint"] == "abc"

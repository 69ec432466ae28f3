"""Runs in an MLflow store in a file."""

import os
import sys

import pytest

from fedtrain import cli
from fedtrain.errors import ConfigError, RunDirectoryError
from fedtrain.sinks.mlflow import MlflowSink, require_model

# SQLAlchemy 2.1 on a part of MLflow 3's tables.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload``")


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """Return a store; it takes seconds to make, so that each test has an experiment of its own."""
    for module in ("sqlalchemy", "alembic", "sqlparse", "mlflow"):
        pytest.importorskip(module)
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # MLflow keeps artifacts there
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        yield f"sqlite:///{folder / 'mlflow.db'}"


def ask(uri):
    return sys.modules["mlflow"].MlflowClient(uri, uri)


def send(uri, run):
    sink = MlflowSink.open(run, uri=uri, experiment="again")
    sink.send(run)
    sink.close(run)
    return sink.id


def test_run_is_there_with_config_figures_and_files(uri, finished, capsys):
    assert cli.main(["sink", "mlflow", str(finished.path), "--tracking-uri", uri]) == 0
    id_ = capsys.readouterr().out.strip()
    found = ask(uri).get_run(id_)
    assert found.info.status == "FINISHED"
    assert found.data.params["federation.rounds"] == "15"
    assert found.data.tags["fedtrain.config_digest"] == finished.state["digest"]
    assert "epsilon = 4.00" in found.data.tags["fedtrain.privacy"]
    history = ask(uri).get_metric_history(id_, "test_accuracy")
    assert [(one.step, one.value) for one in history] == finished.get_series("test_accuracy")
    files = {file.path for file in ask(uri).list_artifacts(id_)}
    assert {"config.toml", "model.json", "model.safetensors", "report.html"} <= files


def test_run_sent_again_gains_only_what_is_new(uri, change_state):
    first = send(uri, change_state(round=10, status="stopped"))
    assert ask(uri).get_run(first).info.status == "KILLED"
    assert send(uri, change_state(round=15, status="finished")) == first
    history = ask(uri).get_metric_history(first, "epsilon")
    assert sorted(one.step for one in history) == list(range(1, 16))
    assert ask(uri).get_run(first).info.status == "FINISHED"


def test_model_is_registered_once(uri, finished):
    command = ["sink", "mlflow", str(finished.path), "--tracking-uri", uri]
    command += ["--experiment", "registered", "--register", "heart"]
    assert [cli.main(command), cli.main(command)] == [0, 0]
    (version,) = ask(uri).search_model_versions("name = 'heart'")
    assert version.tags["fedtrain.data_fingerprint"]
    assert "epsilon = 4.00" in version.description


def test_file_that_is_no_store_is_refused_at_once(uri, finished, tmp_path):
    (tmp_path / "other").write_text("no database at all, only text\n" * 40)
    with pytest.raises(ConfigError, match="not a database"):
        MlflowSink.open(finished, uri=f"sqlite:///{tmp_path / 'other'}")


def test_refusal_of_mlflow_is_one_line(uri, finished):
    with pytest.raises(ConfigError, match=r"MLflow, nowhere://x: .*--tracking-uri"):
        MlflowSink.open(finished, uri="nowhere://x")


def test_telemetry_of_mlflow_is_off(uri, finished, monkeypatch):
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY")
    with pytest.raises(ConfigError):
        MlflowSink.open(finished, uri="nowhere://x")
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_run_without_a_model_is_not_registered(change_state):
    run = change_state(round=10, status="stopped")
    (run.path / "model.safetensors").unlink()
    with pytest.raises(RunDirectoryError, match=r"stopped after 10 of 15 rounds"):
        require_model(run)


def test_missing_mlflow_names_its_extra(finished, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigError, match=r"pip install 'fedtrain\[mlflow\]'"):
        MlflowSink.open(finished, uri="http://127.0.0.1:1")

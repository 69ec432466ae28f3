"""A run's figures, config and files in an MLflow store, and its model in MLflow's registry.

A run is found again by its id, so that sending it twice adds only what is new.
"""

import logging
import os
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Self

from fedtrain.errors import ConfigError, RunDirectoryError
from fedtrain.report.run import Run
from fedtrain.sinks.content import (
    MODEL,
    clean_name,
    describe_run,
    flatten_config,
    list_files,
    list_points,
)
from fedtrain.use.extras import require

EXTRA: Final = "mlflow"
STORE: Final = "sqlite:///mlflow.db"
EXPERIMENT: Final = "fedtrain"
RUN_ID: Final = "fedtrain.run_id"
SENT: Final = "fedtrain.round"
NOTE: Final = "mlflow.note.content"  # what MLflow's pages show as a run's description
LONGEST: Final = 5000  # characters; MLflow's own bound is 6000 for a parameter, 8000 for a tag
PARAMETERS: Final = 100  # at once, MLflow's bound
METRICS: Final = 1000  # at once, MLflow's bound
ENDS: Final = {
    "finished": "FINISHED",
    "stopped": "KILLED",
    "killed": "KILLED",
    "failed": "FAILED",
}


class MlflowSink:
    """One run in an MLflow store."""

    def __init__(self, client: Any, entities: Any, id_: str) -> None:
        self.id = id_
        self._client = client
        self._entities = entities

    @classmethod
    def open(cls, run: Run, *, uri: str = STORE, experiment: str = EXPERIMENT) -> Self:
        """Find the run in the store, or make it there with its config as parameters.

        Args:
            run: A run with a committed state.
            uri: The store: `sqlite:///FILE`, or the address of an MLflow server.
            experiment: Name of the experiment; made where there is none.

        Raises:
            ConfigError: The extra is not installed, or the store refuses or does not answer.
            RunDirectoryError: The run has no id yet.
        """
        if not run.state.get("run_id"):
            raise RunDirectoryError(
                f"{run.path}: has no run id (state.json); send it once its first round is done"
            )
        mlflow = _import_mlflow(uri)
        with _asking(uri):
            client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
            found = client.get_experiment_by_name(experiment)
            place = client.create_experiment(experiment) if found is None else found.experiment_id
            same = f"tags.`{RUN_ID}` = '{run.state['run_id']}'"
            known = client.search_runs([place], filter_string=same, max_results=1)
            if known:
                return cls(client, mlflow.entities, known[0].info.run_id)
            made = client.create_run(place, run_name=run.name, tags=_list_tags(run))
            sink = cls(client, mlflow.entities, made.info.run_id)
            sink._send_config(run)
        return sink

    def send(self, run: Run) -> int:
        """Send the rounds that the store does not have; return the last one.

        Raises:
            ConfigError: The store refuses or does not answer.
        """
        with _asking("the store"):
            has = int(self._client.get_run(self.id).data.tags.get(SENT, 0))
            metrics = [
                self._entities.Metric(
                    clean_name(point.key), point.value, round(1000 * point.time), point.round
                )
                for point in list_points(run, after=has)
            ]
            for part in _cut(metrics, METRICS):
                self._client.log_batch(self.id, metrics=part)
            self._client.set_tag(self.id, SENT, str(max(has, run.rounds_done)))
        return max(has, run.rounds_done)

    def close(self, run: Run) -> None:
        """Send the files, the statement on privacy as it is now, and how the run ended.

        Raises:
            ConfigError: The store refuses or does not answer.
        """
        with _asking("the store"):
            for name, value in _list_tags(run).items():
                self._client.set_tag(self.id, name, value)
            for file in list_files(run.path):
                self._client.log_artifact(self.id, str(file))
            if run.status in ENDS:
                self._client.set_terminated(self.id, ENDS[run.status])
            else:
                self._client.update_run(self.id, status="RUNNING")

    def register(self, run: Run, name: str) -> str:
        """Make the run's model a version of a registered model; once, however often it is asked.

        Args:
            run: A run that is over, sent and closed.
            name: Name of the registered model; made where there is none.

        Returns:
            The version.

        Raises:
            RunDirectoryError: The run has no whole model.
            ConfigError: The store refuses or does not answer.
        """
        require_model(run)
        with _asking("the registry"):
            if not self._client.search_registered_models(f"name = '{name}'"):
                self._client.create_registered_model(name)
            for version in self._client.search_model_versions(f"name = '{name}'"):
                if version.run_id == self.id:
                    return str(version.version)
            tags = _list_tags(run)
            made = self._client.create_model_version(
                name,
                source=self._client.get_run(self.id).info.artifact_uri,
                run_id=self.id,
                description=tags.pop(NOTE),
                tags=tags,
            )
        return str(made.version)

    def _send_config(self, run: Run) -> None:
        parameters = [
            self._entities.Param(clean_name(name), value[:LONGEST])
            for name, value in flatten_config(run.config).items()
        ]
        for part in _cut(parameters, PARAMETERS):
            self._client.log_batch(self.id, params=part)


def require_model(run: Run) -> None:
    """Check that a run has a model to register.

    Raises:
        RunDirectoryError: It has not ended, or has no whole model.
    """
    if not (run.path / MODEL).is_file():
        raise RunDirectoryError(
            f"{run.path}: has no {MODEL} to register, it is {run.status} after {run.rounds_done} of"
            f" {run.rounds_wanted} rounds; register a run that has ended with a whole model"
        )


def _list_tags(run: Run) -> dict[str, str]:
    told = {name: text[:LONGEST] for name, text in describe_run(run).items()}
    return {f"fedtrain.{name}": text for name, text in told.items()} | {NOTE: told["privacy"]}


def _import_mlflow(uri: str) -> Any:
    """Import MLflow so that it reports to nobody and says nothing that is not asked.

    Raises:
        ConfigError: The extra is not installed, or the store's file is none.
    """
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # it has no other switch; read when imported
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # 7 take minutes
    if uri.startswith("sqlite:"):
        for module in ("sqlalchemy", "alembic", "sqlparse"):  # which mlflow-skinny leaves out
            require(module, extra=EXTRA)
        _try_file(uri.removeprefix("sqlite:///"))
    mlflow = require("mlflow", extra=EXTRA)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return mlflow


def _try_file(name: str) -> None:
    """Check that a file is a database or can become one; MLflow would try for minutes."""
    try:
        connection = sqlite3.connect(name)
        try:
            connection.execute("PRAGMA schema_version")
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise ConfigError(f"{name}: {error}; give another --tracking-uri sqlite:///FILE") from error


@contextmanager
def _asking(whom: str) -> Iterator[None]:
    """Turn what MLflow raises into one line."""
    from mlflow.exceptions import MlflowException

    database = sys.modules.get("sqlalchemy.exc")  # there where the store is one
    kinds = () if database is None else (database.SQLAlchemyError,)
    try:
        yield
    except (MlflowException, OSError, *kinds) as error:
        text = " ".join(str(error).split())[:300]
        raise ConfigError(f"MLflow, {whom}: {text}; check --tracking-uri and names") from error


def _cut(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Yield parts of so many values."""
    return (values[start : start + size] for start in range(0, len(values), size))

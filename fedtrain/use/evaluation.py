"""How good a model is on records of one's own, beside what its run measured."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Group, RenderableType

from fedtrain.report.run import Run, load_run
from fedtrain.report.tables import format_count, format_number, label_metric, make_table
from fedtrain.use.new_records import read_labelled_records
from fedtrain.use.run_model import RunModel

OUTSIDE: Final = (
    "These records are outside the run's guarantee, which is about the records that it was trained"
    " on: whoever reads these figures learns of the records they are computed from."
)


@dataclass(frozen=True)
class Evaluation:
    """A model's metrics on new records.

    Attributes:
        data: The file.
        records: Number of records.
        left_out: Rows that have no label.
        metrics: By name, as `compute_metrics` gives them.
        in_run: The run's own test metrics of the chosen round, as far as it has them.
    """

    data: str
    records: int
    left_out: int
    metrics: dict[str, float]
    in_run: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return the evaluation as values that JSON can hold."""
        return {
            "data": self.data,
            "records": self.records,
            "left_out": self.left_out,
            "metrics": self.metrics,
            "in_run": self.in_run,
        }


def evaluate(model: RunModel, path: Path, *, label: str | None = None) -> Evaluation:
    """Evaluate a run's model on a file; see `read_labelled_records`."""
    records, labels = read_labelled_records(model, path, label=label)
    metrics = model.compute_metrics(records.features, labels)
    in_run = _find_own(load_run(model.path), metrics)
    return Evaluation(str(path), len(records), records.left_out, metrics, in_run)


def render_evaluation(evaluation: Evaluation) -> RenderableType:
    """Return the metrics as a table."""
    rows = [
        [label_metric(name), format_number(value), format_number(evaluation.in_run.get(name))]
        for name, value in evaluation.metrics.items()
    ]
    title = f"{evaluation.data}: {format_count(evaluation.records, 'record')}"
    if evaluation.left_out:
        title += f", {format_count(evaluation.left_out, 'row')} without a label left out"
    return Group(title, make_table(["metric", "here", "test in the run"], rows), OUTSIDE)


def _find_own(run: Run, names: dict[str, float]) -> dict[str, float]:
    """Return the run's test metrics of the round whose model was chosen."""
    best = run.state.get("best_round")
    found = {name: run.get_at(f"test_{name}", best or run.rounds_done) for name in names}
    return {name: value for name, value in found.items() if value is not None}

"""The model card: `model_card.md`, with the metadata block that model hubs read."""

from collections.abc import Sequence
from typing import Any, Final

from fedtrain.report.document import Report, SignedReport
from fedtrain.report.figures import format_percent, format_rate
from fedtrain.report.tables import format_epsilon, label_metric
from fedtrain.report.yaml_text import to_yaml

TASKS: Final = {
    "csv": "tabular-classification",
    "parquet": "tabular-classification",
    "sklearn:breast_cancer": "tabular-classification",
    "sklearn:digits": "image-classification",
    "idx": "image-classification",
    "images": "image-classification",
}
HUB_METRICS: Final = {"test_accuracy": "accuracy", "test_auc": "roc_auc", "test_f1": "f1"}
TO_ADD: Final = "_For the controller to add: purpose, users, and uses that are out of scope._"
CLINICAL: Final = (
    "The figures above are all that was measured. A model for care needs validation of its own."
)


def render_card(signed: SignedReport) -> str:
    """Return the model card of a report."""
    report = signed.report
    parts = [
        f"---\n{to_yaml(_build_metadata(report))}---\n",
        f"# {_escape(report.run.name)}\n",
        *(f"{_escape(sentence)}\n" for sentence in report.verdict.sentences),
        "## Model\n",
        (
            f"{_escape(report.run.model)}; trained by {report.run.sites} sites in"
            f" {report.run.rounds_done} rounds with fedtrain"
            f" {_escape(report.run.software.get('fedtrain', ''))}. Files: `model.safetensors`,"
            " `model.json`.\n"
        ),
        "## Intended use\n",
        f"{TO_ADD}\n",
        "## Training data\n",
        _write_table(("What", "Text"), [(one.name, one.text) for one in report.data_sheet]),
        "## Evaluation\n",
        _write_evaluation(report),
        "## Privacy\n",
        _write_table(
            ("", "Field", "Statement"),
            [(f"{one.number}", one.name, one.text) for one in report.statement],
        ),
        *_write_attacks(report),
        "## Limits\n",
        "".join(f"* {_escape(text)}\n" for text in report.limits.not_protected),
        "## How to check\n",
        (
            f"Report digest: `{signed.digest}`. `fedtrain verify RUN`, or `fedtrain verify"
            " report.json`, computes every figure again.\n"
        ),
    ]
    return "\n".join(parts)


def _build_metadata(report: Report) -> dict[str, Any]:
    source = next((fact.text for fact in report.data_sheet if fact.name == "Source"), "")
    task = TASKS.get(source)
    scores = {
        HUB_METRICS[key]: value
        for key, value in report.utility.scores.items()
        if key in HUB_METRICS
    }
    results = [
        {
            "task": {"type": task or "other"},
            "dataset": {"name": report.run.name, "type": source or "other"},
            "metrics": [{"type": key, "value": value} for key, value in scores.items()],
        }
    ]
    tags = ["federated-learning"]
    tags += ["differential-privacy"] if report.guarantees else []
    tags += ["secure-aggregation"] if report.secure_aggregation.mode == "protocol" else []
    return {
        "license": "unknown",
        "library_name": "pytorch",
        "pipeline_tag": task,
        "tags": tags,
        "metrics": list(scores),
        "model-index": [{"name": report.run.name, "results": results}] if scores else None,
    }


def _write_evaluation(report: Report) -> str:
    utility = report.utility
    parts = [f"{_escape(text)}\n" for text in utility.sentences]
    if utility.scores:
        rows = [(label_metric(key), f"{value:.4f}") for key, value in utility.scores.items()]
        parts.append(_write_table(("Metric", "All sites"), rows))
    return "\n".join([*parts, f"{CLINICAL}\n"])


def _write_attacks(report: Report) -> list[str]:
    found = []
    for meaning, guarantee in zip(report.meanings, report.guarantees, strict=False):
        rows = [
            (format_rate(one.false_positive_rate), format_percent(one.true_positive_rate))
            for one in meaning.attacks
        ]
        epsilon = "none" if guarantee.epsilon is None else format_epsilon(guarantee.epsilon)
        found += [
            f"For {guarantee.name}: epsilon {epsilon}. The best attack:\n",
            _write_table(("Outsiders accused wrongly", "Insiders found, at most"), rows),
        ]
    return found


def _write_table(headers: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [headers, tuple("---" for _ in headers), *(tuple(map(_escape, row)) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _escape(text: str) -> str:
    """Return plain text that Markdown leaves as it is."""
    flat = " ".join(text.split())
    for mark in ("\\", "`", "*", "_", "[", "]", "|"):
        flat = flat.replace(mark, f"\\{mark}")
    return flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

"""Runs side by side: results, and the config keys in which they differ."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from fedtrain.costs import SiteCost
from fedtrain.report.cost_sums import sum_all
from fedtrain.report.guarantees import list_guarantees
from fedtrain.report.run import Run
from fedtrain.report.secure import find_voids, get_mode
from fedtrain.report.tables import (
    NOTHING,
    format_bytes,
    format_epsilon,
    format_joules,
    format_number,
    format_seconds,
    format_time,
    label_metric,
    make_facts,
    make_table,
)

# Keys that name a run or say where it is computed; they differ without making a difference.
IGNORED: Final = ("run.name", "run.directory", "simulation.workers")
MAX_LABELS: Final = 60  # characters of labels above which columns are numbered instead
INCOMPARABLE: Final = (
    "These epsilons cannot be compared: delta, unit or neighbouring relation differ.\n"
)
UNSET: Final = "(not set)"
# Prefix of the keys of a run's second and third epsilon, and what is added to their names.
SPENT: Final = {"": "", "site_": ", site", "coordinator_": ", to coordinator"}


def render_runs(runs: Sequence[Run]) -> RenderableType:
    """Return a table of runs, in the given order."""
    headers = (
        "run",
        "status",
        "folder",
        "started",
        "rounds",
        "accuracy",
        "at best",
        "AUC",
        "epsilon",
    )
    rows = [
        (
            run.name,
            run.status,
            str(run.path),
            format_time(run.state.get("started")),
            f"{run.rounds_done}/{run.rounds_wanted}",
            format_number(_find_accuracy(run)),
            format_number(run.get_at("test_accuracy", run.state.get("best_round"))),
            format_number(run.get_last("test_auc")),
            format_epsilon(run.get_last("epsilon")),
        )
        for run in runs
    ]
    return make_table(headers, rows, texts=4)


def render_comparison(runs: Sequence[Run], target: float | None = None) -> RenderableType:
    """Return results side by side and the differing config keys, runs in the given order.

    Args:
        runs: The runs.
        target: Accuracy whose first round is to be shown for each run; None: no such row.
    """
    labels = name_runs(runs)
    parts: list[RenderableType] = []
    if sum(map(len, labels)) > MAX_LABELS:
        numbers = [str(number) for number in range(1, len(runs) + 1)]
        parts += [make_facts(zip(numbers, labels, strict=True)), Text()]
        labels = numbers
    results = _list_results(runs)
    if target is not None:
        results.insert(1, _list_first_rounds(runs, target))
    parts.append(make_table(["metric", *labels], results, title="Results, last round"))
    if len({_identify_guarantee(run) for run in runs} - {None}) > 1:
        parts.append(Text(INCOMPARABLE))
    differences = find_differences([run.config for run in runs])
    if not differences:
        return Group(*parts, Text("The configs do not differ."))
    rows = [[key, *map(_format_value, values)] for key, values in differences.items()]
    title = "Differing config keys"
    return Group(*parts, make_table(["key", *labels], rows, title=title, texts=len(runs) + 1))


def find_first_round(run: Run, target: float) -> int | None:
    """Return the first round of at least this test accuracy, or where untested, validation's.

    Only rounds that were evaluated count; None where none reached it.
    """
    for key in ("test_accuracy", "val_accuracy"):
        series = run.get_series(key)
        if series:
            return next((round_ for round_, value in series if value >= target), None)
    return None


def name_runs(runs: Sequence[Run]) -> list[str]:
    """Return labels that tell the runs apart: names, else folder names, else paths."""
    for labels in ([run.name for run in runs], [run.path.name for run in runs]):
        if len(set(labels)) == len(labels):
            return labels
    paths = [str(run.path) for run in runs]
    counts = Counter(paths)
    return [
        path if counts[path] == 1 else f"{path} ({paths[: index + 1].count(path)})"
        for index, path in enumerate(paths)
    ]


def find_differences(configs: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return the keys (`section.key`) that do not have one value, with each config's value."""
    flat = [flatten(config) for config in configs]
    keys = list(dict.fromkeys(key for config in flat for key in config))
    rows = {key: [_get(config, key) for config in flat] for key in keys if key not in IGNORED}
    return {key: values for key, values in rows.items() if any(v != values[0] for v in values)}


def _get(config: Mapping[str, Any], key: str) -> Any:
    """Return a value; an empty table or list says as much as a key that is not there."""
    value = config.get(key, UNSET)
    return UNSET if value in ({}, []) else value


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a tree as one level, keys joined by points; lists and empty tables are values."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _list_results(runs: Sequence[Run]) -> list[list[str]]:
    keys = ("test_accuracy", "test_auc", "test_f1", "test_loss", "val_accuracy", "val_loss")
    rows = [["rounds", *(f"{run.rounds_done}/{run.rounds_wanted}" for run in runs)]]
    for key in (*keys, "train_loss"):
        values = [run.get_last(key) for run in runs]
        if any(value is not None for value in values):
            rows.append([label_metric(key), *(format_number(value) for value in values)])
    rows.append(["unit", *(_format_unit(run) for run in runs)])
    for prefix, label in SPENT.items():
        rows.append(
            [f"epsilon{label}", *(format_epsilon(run.get_last(f"{prefix}epsilon")) for run in runs)]
        )
        rows.append([f"delta{label}", *(_format_delta(run, prefix) for run in runs)])
    rows.append(["secure sum", *(get_mode(run) for run in runs)])
    if any(find_voids(run) for run in runs):
        rows.append(["void rounds", *(str(len(find_voids(run))) for run in runs)])
    rows.append(["seconds", *(format_seconds(run.state.get("seconds")) for run in runs)])
    rows.append(["sent up", *(format_bytes(_sum_up(run)) for run in runs)])
    rows += _list_costs(runs)
    return [row for row in rows if any(cell != NOTHING for cell in row[1:])]


def _list_costs(runs: Sequence[Run]) -> list[list[str]]:
    """Return what the runs took of this machine; nothing of sites that are deployed."""
    rows = []
    for run in runs:
        cost, joules = sum_all(run) or (SiteCost(), None)
        times = (format_seconds(one or None) for one in (cost.cpu_seconds, cost.gpu_seconds))
        rows.append([*times, format_joules(joules)])
    names = ("CPU", "GPU", "energy")
    return [[name, *cells] for name, cells in zip(names, zip(*rows, strict=True), strict=True)]


def _list_first_rounds(runs: Sequence[Run], target: float) -> list[str]:
    """Return the row of rounds to a target; a run that never reached it says so."""
    cells = []
    for run in runs:
        first = find_first_round(run, target)
        cells.append(f"not in {run.rounds_done}" if first is None else str(first))
    return [f"rounds to {target:.4g}", *cells]


def _find_accuracy(run: Run) -> float | None:
    test = run.get_last("test_accuracy")
    return run.get_last("val_accuracy") if test is None else test


def _format_unit(run: Run) -> str:
    """Return what a run protects, in the config's words."""
    unit = str(run.config.get("privacy", {}).get("unit", "none"))
    return NOTHING if unit == "none" else unit


def _format_delta(run: Run, prefix: str = "") -> str:
    delta = run.get_last(f"{prefix}delta")
    return NOTHING if delta is None else f"{delta:g}"


def _format_value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _identify_guarantee(run: Run) -> tuple[str, ...] | None:
    """Return what an epsilon must share with another to be comparable; None without any."""
    if run.get_last("epsilon") is None:
        return None
    relation = str(run.config.get("privacy", {}).get("neighbouring_relation"))
    return (*(one.unit for one in list_guarantees(run.config)[:1]), relation, _format_delta(run))


def _sum_up(run: Run) -> float | None:
    counts = [line["bytes_up"] for line in run.metrics if line.get("bytes_up") is not None]
    return sum(counts) if counts else None

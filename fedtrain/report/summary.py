"""A run's summary for people, and the same as one JSON object."""

import math
from collections.abc import Callable, Container, Sequence
from functools import partial
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from fedtrain.report.diagnosis import describe_fit, describe_gradients
from fedtrain.report.guarantees import Guarantee, list_guarantees
from fedtrain.report.privacy import asks_statistics, describe_privacy, find_accountant
from fedtrain.report.run import Run, load_run, to_finite
from fedtrain.report.secure import (
    VOIDS_LIMIT,
    build_aggregation,
    describe_aggregation,
    describe_voids,
    find_voids,
)
from fedtrain.report.tables import (
    NOTHING,
    format_bytes,
    format_count,
    format_epsilon,
    format_number,
    format_seconds,
    format_time,
    label_metric,
    make_facts,
    make_table,
    thin,
)

__all__ = ["Run", "load_run", "render_rounds", "render_sites", "render_summary"]

METRICS: Final = (
    *("accuracy", "balanced_accuracy", "subset_accuracy", "auc", "average_precision"),
    *("f1", "precision", "recall", "recall_at_5", "ece", "perplexity"),
    *("r2", "mae", "rmse", "loss"),
)
ROUND_KEYS: Final = (
    "train_loss",
    "val_loss",
    "val_accuracy",
    "test_loss",
    "test_accuracy",
    "test_auc",
)
ROUND_LIMIT: Final = 20
SITE_LIMIT: Final = 30
SECURE_COLUMNS: Final = "sites: survivors/cohort (threshold: survivors that the secure sum needs)"
OWN_METRICS: Final = " (metrics as each site wrote them down itself)"
SUPPRESSED: Final = (
    "Metrics are suppressed: no site sent a loss or an accuracy."
    " Test the model on data of your own."
)
MAX_FACT: Final = 80  # characters of a value from the config
LONG: Final = ("status", "to go on", "folder", "privacy", "secure sum")  # never shortened


def render_summary(run: Run) -> RenderableType:
    """Return what a run was, how good its model is, and what it guarantees.

    Args:
        run: The run, finished or not.

    Returns:
        Something that a rich console prints.
    """
    parts: list[RenderableType] = [make_facts(_list_facts(run))]
    if run.metrics and not asks_statistics(run):
        parts.append(_render_results(run))
        parts += [Text(f"{found}\n") for found in _find_faults(run)]
    parts += [Text(describe_privacy(run)), Text()]
    return Group(*parts)


def _find_faults(run: Run) -> list[str]:
    """Return what the curves say of the model's fit and its gradients, each with a cure."""
    return [found for found in (describe_fit(run), describe_gradients(run)) if found]


def render_rounds(run: Run, limit: int | None = ROUND_LIMIT) -> RenderableType:
    """Return the curves as a table, and below it which rounds are void and why.

    Args:
        run: The run.
        limit: About so many rounds, evenly chosen, the ends and the best among them; None: all.

    Returns:
        Something that a rich console prints.
    """
    best = run.state.get("best_round")
    numbers = [int(line["round"]) for line in run.metrics]
    keep = [numbers.index(best)] if best in numbers else []
    chosen = thin(len(numbers), limit or len(numbers) or 1, keep)
    voids = find_voids(run)
    spent = list_guarantees(run.config) or [Guarantee("", "none", "")]
    rows = [_format_round(run.metrics[index], best, voids, spent) for index in chosen]
    shown = "" if len(chosen) == len(numbers) else f", {len(chosen)} of {len(numbers)} shown"
    title = f"By round{shown}" + (" (* the best by validation loss)" if keep else "")
    names = [_shorten_label(key) for key in ROUND_KEYS]
    headers = ["round", *names, *_head_spent(spent), "clip", "sites", "sec."]
    left_out = _leave_out(spent)
    places = [place for place, name in enumerate(headers) if name not in left_out]
    cells = [[row[place] for place in places] for row in rows]
    table = make_table([headers[place] for place in places], cells, title=title, texts=0)
    parts: list[RenderableType] = [table]
    if any(line.get("threshold") is not None for line in run.metrics):
        parts.append(Text(SECURE_COLUMNS))
    if voids:
        parts.append(Text(describe_voids(run, VOIDS_LIMIT if limit else None)))
    return Group(*parts, Text()) if len(parts) > 1 else table


def render_sites(run: Run, limit: int | None = SITE_LIMIT) -> RenderableType:
    """Return the last evaluation site by site.

    Args:
        run: The run.
        limit: Of more sites than this, those where the model does worst; where none was evaluated,
            those that spent most. None: all.

    Returns:
        Something that a rich console prints.
    """
    if not run.sites:
        return Text("By site: no evaluation at the sites yet.")
    sites, title = run.sites, "By site"
    own = OWN_METRICS if any("test_round" in site for site in sites) else ""
    if limit is not None and len(sites) > limit:
        order, rank = _choose_rank(sites)
        sites = sorted(sites, key=rank)[:limit]
        title = f"By site, the {limit} of {len(run.sites)} with {order}"
    ages = {site["test_round"] for site in run.sites if "test_round" in site}
    rows = [_format_site(site, aged=len(ages) > 1) for site in sites]
    if any("own_accuracy" in site for site in sites):
        title += ": global model, and the site's own"
    epsilon = _head_spent(list_guarantees(run.config)[:2] or [Guarantee("", "none", "")])[0]
    headers = (
        "site",
        "rounds",
        "test accuracy",
        "test AUC",
        "test loss",
        "own accuracy",
        "own loss",
        "tested",
        epsilon,
    )
    return make_table(headers, rows, title=title + own)


def has_site_results(run: Run) -> bool:
    """Say whether any site has more to show than its name and rounds."""
    keys = (*(f"test_{name}" for name in METRICS), "epsilon")
    return any(to_finite(site.get(key)) is not None for site in run.sites for key in keys)


def build_summary(run: Run) -> dict[str, Any]:
    """Return the run as one JSON object: state, config, metrics, sites and the guarantee.

    Returns:
        Nested dicts of JSON's types; a number that is not finite is null.
    """
    spent = None
    privacy = run.config.get("privacy", {})
    unit = privacy.get("unit", "none")
    if asks_statistics(run):
        unit = "none" if run.get_last("epsilon") is None else "record"
    if unit != "none":
        spent = {
            "unit": unit,
            "epsilon": run.get_last("epsilon"),
            "delta": run.get_last("delta"),
            "neighbouring_relation": privacy.get("neighbouring_relation"),
            "accountant": find_accountant(run),
            "rounds": run.rounds_done,
            "guarantees": [
                {
                    "unit": one.unit,
                    "name": one.name,
                    "epsilon": run.get_last(one.key),
                    "delta": run.get_last(one.delta_key),
                }
                for one in list_guarantees(run.config | {"privacy": privacy | {"unit": unit}})
            ],
        }
    summary = {
        "run": run.name,
        "directory": str(run.path),
        "state": run.state,
        "privacy": spent,
        "statement": describe_privacy(run),
        "secure_aggregation": build_aggregation(run),
        "config": run.config,
        "metrics": run.metrics,
        "sites": run.sites,
    }
    cleaned: dict[str, Any] = _drop_infinities(summary)
    return cleaned


def _list_facts(run: Run) -> list[tuple[str, str]]:
    config = {section: run.config.get(section, {}) for section in ("data", "model", "training")}
    federation = run.config.get("federation", {})
    partition = run.config.get("partition", {})
    facts = [("run", run.name), ("status", _describe_progress(run))]
    if run.status in ("stopped", "failed", "killed"):
        facts.append(("to go on", f"fedtrain simulate --resume {run.path}"))
    sites = run.state.get("sites", partition.get("sites"))
    facts += [
        ("data", f"{config['data'].get('source', NOTHING)}, {partition.get('scheme', NOTHING)}"),
        ("sites", NOTHING if sites is None else str(sites)),
        *_list_training_facts(run, config, federation),
        ("secure sum", describe_aggregation(run)),
        ("time", f"{format_seconds(run.state.get('seconds'))}, from {_get_start(run)}"),
        ("traffic", _describe_traffic(run)),
        ("folder", str(run.path)),
    ]
    return [(name, text if name in LONG else _shorten(text)) for name, text in facts if text]


def _list_training_facts(
    run: Run, config: dict[str, dict[str, Any]], federation: dict[str, Any]
) -> list[tuple[str, str]]:
    if asks_statistics(run):
        return [("asks for", "statistics, trains nothing")]
    return [
        ("model", str(config["model"].get("name", NOTHING))),
        ("strategy", _describe_strategy(federation)),
        ("training", _describe_training(config["training"])),
        ("privacy", _describe_mechanism(run)),
    ]


def _describe_progress(run: Run) -> str:
    reason = run.state.get("reason")
    text = f"{run.status} after {run.rounds_done} of {run.rounds_wanted} rounds"
    return f"{text}: {reason}" if reason else text


def _describe_strategy(federation: dict[str, Any]) -> str:
    options = ", ".join(f"{k} = {v}" for k, v in federation.get("strategy_options", {}).items())
    name = str(federation.get("strategy", NOTHING))
    return f"{name} ({options})" if options else name


def _describe_training(training: dict[str, Any]) -> str:
    if training.get("local_steps"):
        duration = format_count(training["local_steps"], "step")
    else:
        duration = format_count(training.get("local_epochs", NOTHING), "local epoch")
    optimiser, rate = training.get("optimiser", NOTHING), training.get("learning_rate", NOTHING)
    return f"{optimiser}, learning rate {rate}, {duration} a round"


def _describe_mechanism(run: Run) -> str:
    """Return noise and clip of each unit; nothing without differential privacy."""
    privacy = run.config.get("privacy", {})
    unit = str(privacy.get("unit", "none"))
    first = unit.partition("_")[0]
    parts = []
    if first in ("record", "person"):
        noise, clip = (privacy.get(key, NOTHING) for key in ("noise_multiplier", "max_grad_norm"))
        parts.append(f"{first}: noise multiplier {noise}, clip {clip}")
    if unit.endswith("site"):
        site = privacy.get("site", {})
        clip, now = site.get("max_update_norm", NOTHING), run.get_last("update_norm")
        text = f"{clip}" if now is None else f"{now:.3g}, adaptive, at most {clip}"
        parts.append(f"site: noise multiplier {site.get('noise_multiplier', NOTHING)}, clip {text}")
    return "; ".join(parts)


def _describe_traffic(run: Run) -> str:
    down, up = (
        sum(line.get(key) or 0 for line in run.metrics) for key in ("bytes_down", "bytes_up")
    )
    return f"{format_bytes(down)} to the sites, {format_bytes(up)} back"


def _get_start(run: Run) -> str:
    return format_time(run.state.get("started"))


def _render_results(run: Run) -> RenderableType:
    """Return test and validation metrics of the last and the best round."""
    if run.config.get("privacy", {}).get("metrics") == "suppressed" and not run.find_utility():
        return Text(f"\n{SUPPRESSED}\n")
    best = run.state.get("best_round")
    rows = []
    for split, name in ((s, m) for s in ("test", "val") for m in METRICS):
        key = f"{split}_{name}"
        last, at_best = run.get_last(key), run.get_at(key, best)
        if last is not None:
            rows.append((label_metric(key), format_number(last), format_number(at_best)))
    rows += _list_parts(run)
    header = "best round" if best is None else f"round {best}, best by validation loss"
    return make_table(("metric", "last", header), rows)


def _list_parts(run: Run) -> list[tuple[str, str, str]]:
    """Return the metrics of sites' own models and of groups of records, of the last evaluation."""
    names = [key for line in run.metrics for key in line if key.startswith(("own_", "group"))]
    shown = [key for key in dict.fromkeys(names) if not key.endswith(("precision", "recall"))]
    return [(label_metric(key), format_number(run.get_last(key)), NOTHING) for key in shown]


def _head_spent(guarantees: Sequence[Guarantee]) -> list[str]:
    """Return the headers of the columns of epsilons; one alone needs no more than its name."""
    if len(guarantees) == 1:
        return ["epsilon"]
    words = {"coordinator_": "coord."}
    return [f"epsilon\n{words.get(one.prefix, one.unit)}" for one in guarantees]


def _leave_out(guarantees: Sequence[Guarantee]) -> set[str]:
    """Return the headers that several epsilons leave no room for in 80 columns."""
    if len(guarantees) == 1:
        return set()
    prefixes = ("val_",) if len(guarantees) == 2 else ("val_", "train_", "test_loss")
    return {"sec.", *(_shorten_label(key) for key in ROUND_KEYS if key.startswith(prefixes))}


def _format_round(
    line: dict[str, Any],
    best: int | None,
    voids: Container[int],
    guarantees: Sequence[Guarantee],
) -> list[str]:
    number = line["round"]
    marks = ("*" if number == best else "") + ("!" if number in voids else "")
    return [
        f"{number} {marks}" if marks else str(number),
        *(_format_metric(line.get(key)) for key in ROUND_KEYS),
        *(_format_spent(line.get(one.key)) for one in guarantees),
        NOTHING if to_finite(line.get("update_norm")) is None else f"{line['update_norm']:.3g}",
        _format_cohort(line),
        NOTHING if line.get("seconds") is None else f"{line['seconds']:.2f}",
    ]


def _format_cohort(line: dict[str, Any]) -> str:
    """Return `survivors/cohort (threshold)`."""
    if line.get("cohort") is None:
        return NOTHING
    threshold = "" if line.get("threshold") is None else f" ({line['threshold']})"
    return f"{line.get('survivors')}/{line['cohort']}{threshold}"


def _format_site(site: dict[str, Any], *, aged: bool) -> list[str]:
    keys = ("test_accuracy", "test_auc", "test_loss", "own_accuracy", "own_loss")
    return [
        str(site.get("site", NOTHING)),
        str(site.get("rounds", NOTHING)),
        *(_format_metric(site.get(key)) for key in keys),
        f"round {site['test_round']}" if aged and "test_round" in site else NOTHING,
        _format_spent(site.get("epsilon")),
    ]


def _format_metric(value: float | None) -> str:
    """Return a metric; one that is not finite says so, it is not the same as a missing one."""
    return NOTHING if value is None else format_number(value)


def _format_spent(value: float | None) -> str:
    finite = to_finite(value)
    return str(value) if value is not None and finite is None else format_epsilon(finite)


def _choose_rank(sites: list[dict[str, Any]]) -> tuple[str, Callable[[dict[str, Any]], Any]]:
    """Return which sites matter most, in words and as a key to sort by."""
    for key, sign, order in (
        ("test_accuracy", 1, "least accuracy"),
        ("epsilon", -1, "most epsilon"),
    ):
        if any(to_finite(site.get(key)) is not None for site in sites):
            return order, partial(_rank_site, key=key, sign=sign)
    return "most rounds", partial(_rank_site, key="rounds", sign=-1)


def _rank_site(site: dict[str, Any], *, key: str, sign: int) -> tuple[float, str]:
    value = to_finite(site.get(key))
    return (math.inf if value is None else sign * value, str(site.get("site")))


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_FACT else f"{text[: MAX_FACT - 3]}..."


def _shorten_label(key: str) -> str:
    """Return a metric's name on two short lines."""
    label = label_metric(key).replace("validation", "val.").replace("accuracy", "acc.")
    return label.replace(" ", "\n")


def _drop_infinities(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _drop_infinities(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_drop_infinities(item) for item in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None

"""How good a run's model is, how evenly over the sites, and what it was trained on."""

import json
from collections.abc import Sequence
from typing import Any, Final

from fedtrain.audit.evidence import Evidence
from fedtrain.config import DataSection
from fedtrain.report.document import Fact, SiteScores, Utility
from fedtrain.report.figures import join_words, round_near
from fedtrain.report.run import to_finite
from fedtrain.report.tables import label_metric

NAMES: Final = ("accuracy", "auc", "f1", "precision", "recall", "r2", "mae", "rmse", "loss")
MEASURES: Final = ("accuracy", "auc", "f1")
NO_SCORES: Final = (
    "No metric left a site: under a guarantee they are suppressed. Test the model on data of your"
    " own."
)
NOT_COVERED: Final = "These figures are computed on records and are outside the guarantee."
OWN: Final = "Each site's figures are as the site wrote them down itself; nobody can check them."
SPREAD: Final = (
    "Sites differ in size and mix: a gap is no proof of unfairness, and none is no proof of"
    " fairness to groups within a site, which nobody measured."
)
NOBODY: Final = "Nobody recorded it."
MAX_COLUMNS: Final = 40


def build_utility(evidence: Evidence) -> Utility:
    """Return the last round's test metrics, and each site's own."""
    last: dict[str, Any] = evidence.metrics[-1] if evidence.metrics else {}
    scores = _take_scores(last)
    sites = tuple(_list_sites(evidence))
    shared = [name for name in MEASURES if all(f"test_{name}" in one.scores for one in sites)]
    measure = f"test_{shared[0]}" if sites and shared else None
    sentences = []
    if len(sites) > 1:
        sentences += [_describe_spread(sites, f"test_{name}") for name in shared[:2]]
        sentences += [SPREAD] if shared else []
    if scores or sites:
        sentences += [NOT_COVERED] if evidence.config.privacy.unit != "none" else []
        sentences += [OWN] if sites and evidence.mode != "off" else []
    else:
        sentences.append(NO_SCORES)
    return Utility(scores=scores, measure=measure, sites=sites, sentences=tuple(sentences))


def build_data_sheet(evidence: Evidence) -> tuple[Fact, ...]:
    """Return what is known of the data, from config and model; no record was looked at."""
    config = evidence.config
    data, partition = config.data, config.partition
    environment = evidence.read_json("environment.json")
    described = _read_model(evidence)
    columns = described.get("preparation", {}).get("columns") or []
    facts = {
        "Source": data.source,
        "Sites": f"{partition.sites} sites, partition '{partition.scheme}'",
        "Label": data.label or "given by the source",
        "Classes": _describe_classes(data, described.get("label_names") or data.classes or ()),
        "Features": _describe_columns(columns),
        "Preparation": _describe_preparation(str(data.preparation)),
        "Held out": f"{data.test_fraction:.0%} to test, {data.validation_fraction:.0%} to choose",
        "Records": "Their number by site is not in this report.",
        "Persons": f"column '{data.person_column}'"
        if data.person_column
        else "no column names them",
        "Period": f"{NOBODY} The sites can say which time their records are of.",
        "Legal basis, recipients, retention": f"{NOBODY} For the controller to add.",
        "Fingerprint of the data": str(environment.get("data_fingerprint") or NOBODY),
    }
    return tuple(Fact(name=name, text=text) for name, text in facts.items())


def _describe_classes(data: DataSection, names: Sequence[str]) -> str:
    """Return the classes, or what is predicted in their place."""
    text = ", ".join(names) or NOBODY
    known = data.task in (None, "classification", "anomaly")
    return text if known else f"none; {data.task} of {text}"


def describe_data(facts: tuple[Fact, ...]) -> str:
    """Return the data sheet's core in a sentence."""
    found = {fact.name: fact.text for fact in facts}
    return (
        f"Source {found['Source']}; {found['Sites']}; classes {found['Classes']}. Fingerprint of"
        f" the data: {found['Fingerprint of the data'][:16]}. Period: not recorded."
    )


def _list_sites(evidence: Evidence) -> list[SiteScores]:
    found = []
    if evidence.mode == "off":
        trees = [dict(site) for site in evidence.sites or ()]
    else:
        files = sorted((evidence.path / "sites").glob("*.json"))
        trees = [evidence.read_json(f"sites/{file.name}") for file in files]
    for tree in trees:
        scores = _take_scores(tree)
        if scores:
            round_ = tree.get("round")
            whole = round_ if isinstance(round_, int) else None
            found.append(SiteScores(site=str(tree.get("site")), round=whole, scores=scores))
    return sorted(found, key=lambda one: one.site)


def _take_scores(tree: dict[str, Any]) -> dict[str, float]:
    found = {f"test_{name}": to_finite(tree.get(f"test_{name}")) for name in NAMES}
    return {key: round_near(value, 4) for key, value in found.items() if value is not None}


def _describe_spread(sites: tuple[SiteScores, ...], measure: str) -> str:
    ranked = sorted(sites, key=lambda one: one.scores[measure])
    low, high = ranked[0], ranked[-1]
    gap = high.scores[measure] - low.scores[measure]
    return (
        f"By site, {label_metric(measure)} goes from {low.scores[measure]:.3f} ({low.site}) to"
        f" {high.scores[measure]:.3f} ({high.site}): a gap of {gap:.3f}."
    )


def _describe_columns(columns: list[dict[str, Any]]) -> str:
    names = [str(column.get("name")) for column in columns]
    if not names:
        return "as the source gives them"
    shown = names[:MAX_COLUMNS]
    more = [f"{len(names) - MAX_COLUMNS} more"] if len(names) > MAX_COLUMNS else []
    return f"{len(names)}: {join_words([*shown, *more])}"


def _describe_preparation(name: str) -> str:
    return {
        "bounds": "by public bounds and categories of the config; nothing was asked of a site",
        "standardise": "by means and variances that sites summed, unprotected",
        "none": "none",
    }.get(name, name)


def _read_model(evidence: Evidence) -> dict[str, Any]:
    if not (evidence.path / "model.json").exists():
        return {}
    return evidence.read_json("model.json")


def read_architecture(evidence: Evidence) -> str:
    """Return the model's name with its input, in a few words."""
    tree = _read_model(evidence).get("architecture", {})
    name = str(tree.get("name", evidence.config.model.name))
    shape = json.dumps(tree["input_shape"]) if "input_shape" in tree else ""
    return f"{name}, input {shape}" if shape else name

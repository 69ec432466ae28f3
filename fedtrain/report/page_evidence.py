"""Sections of the page on evidence: sums, audit, utility, data, config, limits, signatures."""

from collections.abc import Mapping
from typing import Final

from fedtrain.report import elements as e
from fedtrain.report.document import FindingPart, Report, SignedReport, SumRound
from fedtrain.report.pictures import Bar, draw_bars, draw_bounds
from fedtrain.report.standards import SECTIONS
from fedtrain.report.tables import NOTHING, label_metric, thin
from fedtrain.report.verdict import get_bound

MOST_ROUNDS: Final = 24
MOST_SITES: Final = 30
MOST_KEY: Final = 16
VERDICTS: Final = {
    "holds": "✓ nothing contradicts the claim",
    "violated": "✗ the claim is contradicted",
    "inconclusive": "? could not tell",
    "informative": "i for information",
}
PURPOSES: Final = {"train": "training", "evaluate": "testing"}


def write_aggregation(report: Report) -> list[str]:
    """Return what the coordinator saw, round by round."""
    sums = report.secure_aggregation
    keep = [index for index, one in enumerate(sums.rounds) if one.void is not None][:MOST_ROUNDS]
    chosen = thin(len(sums.rounds), MOST_ROUNDS, keep)
    shown = [sums.rounds[index] for index in chosen]
    more = f"; {len(shown)} of {len(sums.rounds)} shown" if len(shown) < len(sums.rounds) else ""
    headers = ("Round", "For", "Asked", "Needed", "Answered", "Signatures", "Result")
    table = e.table(
        headers,
        [_list_sum(one, signs=sums.mode == "protocol") for one in shown],
        caption=f"Sums by round: sites asked, sites needed for a sum, sites that answered{more}",
        figures=(2, 3, 4, 5),
    )
    return [*(e.paragraph(text) for text in sums.sentences), table]


def write_audit(report: Report, pictures: Mapping[str, bytes]) -> list[str]:
    """Return the bound with every attack's result beside it."""
    findings = report.audit.findings
    parts = [e.paragraph(text) for text in report.audit.sentences]
    if not findings:
        return parts
    claimed = next((one.epsilon for one in report.guarantees if one.epsilon is not None), None)
    bounds = [
        Bar(one.title, low, f"{low:.2f}") for one in findings if (low := get_bound(one)) is not None
    ]
    if claimed is not None and bounds:
        caption = "Lower bounds of epsilon that attacks show, beside the claim (dashed)."
        parts.append(e.figure(draw_bounds(bounds, claimed=claimed), caption))
    headers = ("Method", "Result", "Unit", "Sample", "Confidence", "Seed")
    rows = [
        (
            one.title,
            VERDICTS[one.verdict],
            one.unit,
            f"{one.sample_size:,}",
            NOTHING if one.confidence is None else f"{100 * one.confidence:g} %",
            f"{one.seed}",
        )
        for one in findings
    ]
    parts.append(e.table(headers, rows, caption="What was tried", figures=(3, 4, 5)))
    return [*parts, *(_write_finding(one, pictures) for one in findings)]


def write_utility(report: Report) -> list[str]:
    """Return how good the model is, and how evenly."""
    utility = report.utility
    parts = [e.paragraph(text) for text in utility.sentences]
    if utility.scores:
        scores = [(_label(key), f"{value:.4f}") for key, value in utility.scores.items()]
        caption = "The final model on records held out at all sites"
        parts.append(e.table(("Metric", "Value"), scores, caption=caption, figures=(1,)))
    sites, measure = utility.sites[:MOST_SITES], utility.measure
    if sites and measure is not None:
        bars = [Bar(one.site, one.scores[measure], f"{one.scores[measure]:.3f}") for one in sites]
        title = f"{_label(measure)} by site"
        parts.append(
            e.figure(draw_bars(bars, title=title), f"{title}, by each site's own figures.")
        )
        keys = list(dict.fromkeys(key for one in sites for key in one.scores))
        rows = [
            (
                one.site,
                *(f"{one.scores[key]:.3f}" if key in one.scores else NOTHING for key in keys),
            )
            for one in sites
        ]
        headers = ("Site", *(_label(key).removeprefix("Test ").capitalize() for key in keys))
        caption = "By site, on records held out there"
        parts.append(e.table(headers, rows, caption=caption, figures=range(1, len(headers))))
    return parts


def write_data(report: Report) -> list[str]:
    """Return the data sheet."""
    rows = [("", fact.name, fact.text) for fact in report.data_sheet]
    return [e.fact_table(rows, caption="What is known of the data, without looking at a record")]


def write_config(report: Report) -> list[str]:
    """Return the whole config, with its digest."""
    return [
        e.paragraph(
            "Everything that the run computed follows from this file, the data and the software."
            " Its digest is in every message, ledger line and signature."
        ),
        f"<p>SHA-256: <code>{report.config.digest}</code></p>",
        e.verbatim(report.config.toml),
    ]


def write_limits(report: Report) -> list[str]:
    """Return what is not protected, what stays at risk, and the hazards with their answers."""
    limits = report.limits
    rows = [
        ((one.name, one.layer, one.answer), one.section, SECTIONS[one.section])
        for one in limits.hazards
    ]
    headers = ("Hazard", "Layer", "Answer", "Shown in")
    return [
        e.heading("Not protected"),
        e.bullets(limits.not_protected),
        e.heading("Residual risks"),
        e.bullets(limits.residual_risks),
        e.heading("Hazards"),
        e.linked_table(headers, rows, caption="Known hazards of differential privacy in practice"),
    ]


def write_signatures(signed: SignedReport) -> list[str]:
    """Return who signed what, the checks that were made, and the files' digests."""
    report = signed.report
    rows = [(one.who, one.what, _cut(one.key), one.result) for one in report.signed]
    made = " (simulated)" if signed.simulated else ""
    result = "by verify" if signed.key else "not signed"
    rows.append((f"coordinator{made}", "this report", _cut(signed.key) or NOTHING, result))
    checks = [
        (one.name, f"{one.count:,}" if one.count else NOTHING, one.result) for one in report.checks
    ]
    files = [(name, digest[:32]) for name, digest in report.evidence.items()]
    return [
        e.table(("Who", "What", "Key", "Holds"), rows, caption="Signatures; a key is cut short"),
        e.heading("What was checked before this report was written"),
        e.table(("Check", "Number", "Result"), checks, caption="Checks", figures=(1,)),
        e.heading("Files that it follows from"),
        e.table(("File", "SHA-256, its first half"), files, caption="Evidence"),
    ]


def write_standards(report: Report) -> list[str]:
    """Return which standard finds which of its fields where."""
    rows = [
        ((one.source, one.field), one.section, SECTIONS[one.section]) for one in report.standards
    ]
    headers = ("Standard", "What it asks for", "Section")
    return [
        e.paragraph(
            "The table says where to look. It is no claim of conformity, which is not ours."
        ),
        e.linked_table(headers, rows, caption="Fields by standard"),
    ]


def _write_finding(one: FindingPart, pictures: Mapping[str, bytes]) -> str:
    rows = [(name.replace("_", " "), _format(value)) for name, value in one.figures.items()]
    images = "".join(
        f"<figure>{markup}</figure>"
        for name in one.pictures
        if name in pictures
        and (markup := e.image(name, pictures[name], text=f"Picture of the result: {one.title}"))
    )
    figures = (
        e.table(("Figure", "Value"), rows, caption=f"Figures of: {one.title}", figures=(1,))
        if rows
        else ""
    )
    return (
        f'<div class="finding">{e.heading(one.title)}{e.paragraph(one.sentence, kind="says")}'
        f"{e.paragraph(f'What the attacker sees: {one.threat_model}')}{figures}{images}</div>"
    )


def _list_sum(one: SumRound, *, signs: bool) -> tuple[str, ...]:
    return (
        f"{one.round}",
        PURPOSES.get(one.purpose, one.purpose),
        f"{one.cohort}",
        NOTHING if one.threshold is None else f"{one.threshold}",
        f"{one.survivors}",
        f"{one.signatures}" if signs else NOTHING,
        "sum" if one.void is None else f"void: {one.void}",
    )


def _format(value: float | int | str | None) -> str:
    if value is None:
        return NOTHING
    return f"{value:.4g}" if isinstance(value, float) else f"{value}"


def _label(key: str) -> str:
    label = label_metric(key)
    return f"{label[:1].upper()}{label[1:]}"


def _cut(key: str) -> str:
    return f"{key[:MOST_KEY]}…" if len(key) > 2 * MOST_KEY else key

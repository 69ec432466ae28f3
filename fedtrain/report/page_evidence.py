"""Sections of the page on evidence: sums, audit, utility, data, config, limits, signatures."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from fedtrain.report import elements as e
from fedtrain.report.document import FindingPart, Report, SignedReport, SumRound
from fedtrain.report.pictures import Bar, Bound, draw_bars, draw_bounds
from fedtrain.report.spending import write_ranges
from fedtrain.report.standards import SECTIONS
from fedtrain.report.tables import NOTHING, label_metric, thin
from fedtrain.report.verdict import get_bound, get_claim

MOST_ROUNDS: Final = 24
MOST_SITES: Final = 30
MOST_KEY: Final = 16
VERDICTS: Final = {
    "holds": "✓ holds",
    "violated": "✗ contradicted",
    "inconclusive": "? unclear",
    "informative": "· no claim",
}
SUMMED: Final = "sum"
PURPOSES: Final = {"train": "training", "evaluate": "testing"}


def write_aggregation(report: Report) -> list[str]:
    """Return what the coordinator saw, round by round."""
    sums = report.secure_aggregation
    signs = sums.mode == "protocol"
    rows = _group_sums(sums.rounds, signs=signs)
    keep = [index for index, row in enumerate(rows) if row[-1] != SUMMED][:MOST_ROUNDS]
    chosen = thin(len(rows), MOST_ROUNDS, keep)
    more = f"; {len(chosen)} of {len(rows)} rows shown" if len(chosen) < len(rows) else ""
    headers = ("Rounds", "For", "Asked", "Needed", "Answered", "Signatures", "Result")
    table = e.table(
        headers,
        [rows[index] for index in chosen],
        caption=f"Sites asked, needed for a sum, and that answered; equal rounds in one row{more}",
        figures=(2, 3, 4, 5),
    )
    return [*(e.paragraph(text) for text in sums.sentences), table]


def write_audit(report: Report, pictures: Mapping[str, bytes]) -> list[str]:
    """Return the bound with every attack's result beside it."""
    findings = report.audit.findings
    parts = [e.paragraph(text) for text in report.audit.sentences]
    if not findings:
        return parts
    bounds = [
        Bound(one.title, low, get_claim(one))
        for one in findings
        if (low := get_bound(one)) is not None
    ]
    if bounds:
        caption = (
            "What attacks show: epsilon is at least the dot. The upright stroke is what is claimed"
            " of what was attacked, at most; a dot right of its stroke would be a contradiction."
        )
        parts.append(e.figure(draw_bounds(bounds), caption))
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
    shown = utility.sites[:MOST_SITES]
    trees = {"All sites": utility.scores} if utility.scores else {}
    trees |= {one.site: one.scores for one in shown}
    keys = list(dict.fromkeys(key for scores in trees.values() for key in scores))
    if keys:
        headers = ("Where", *(_label(key.removeprefix("test_")) for key in keys))
        rows = [(name, *(_format_score(tree, key) for key in keys)) for name, tree in trees.items()]
        caption = "The final model on records held out at the sites"
        parts.append(e.table(headers, rows, caption=caption, figures=range(1, len(headers))))
    measure = utility.measure
    if shown and measure is not None:
        bars = [Bar(one.site, one.scores[measure], f"{one.scores[measure]:.3f}") for one in shown]
        title = f"{_label(measure)} by site"
        parts.append(
            e.figure(draw_bars(bars, title=title), f"{title}, by each site's own figures.")
        )
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
        e.verbatim(_join_arrays(report.config.toml)),
    ]


def write_limits(report: Report) -> list[str]:
    """Return what is not protected, what stays at risk, and the hazards with their answers."""
    limits = report.limits
    rows = [
        ((one.name, one.answer), one.section, SECTIONS[one.section], one.layer)
        for one in limits.hazards
    ]
    headers = ("Hazard", "Answer", "Shown in")
    return [
        e.heading("Not protected"),
        e.bullets(limits.not_protected),
        e.heading("Residual risks"),
        e.bullets(limits.residual_risks),
        e.linked_table(headers, rows, caption="Known hazards of differential privacy in practice"),
    ]


def write_signatures(signed: SignedReport) -> list[str]:
    """Return who signed what, the checks that were made, and the files' digests."""
    report = signed.report
    rows = [(one.who, one.what, _cut(one.key), one.result) for one in report.signed]
    made = " (simulated)" if signed.simulated else ""
    result = "see verify" if signed.key else "not signed"
    rows.append((f"coordinator{made}", "this report", _cut(signed.key) or NOTHING, result))
    checks = [
        (one.name, f"{one.count:,}" if one.count else NOTHING, one.result) for one in report.checks
    ]
    files = [(name, digest[:32]) for name, digest in report.evidence.items()]
    return [
        e.table(
            ("Who", "What", "Key", "Result"),
            rows,
            caption="Signatures; keys are cut short",
            codes=(2,),
        ),
        e.table(
            ("Check", "Number", "Result"),
            checks,
            caption="What was checked before this report was written",
            figures=(1,),
        ),
        e.table(
            ("File", "SHA-256, its first half"),
            files,
            caption="Files that it follows from",
            codes=(1,),
        ),
    ]


def write_standards(report: Report) -> list[str]:
    """Return which standard finds which of its fields where."""
    rows = [
        ((one.field,), one.section, SECTIONS[one.section], one.source) for one in report.standards
    ]
    headers = ("What is asked for", "Section")
    return [
        e.paragraph(
            "The table says where to look. It is no claim of conformity, which is not ours."
        ),
        e.linked_table(headers, rows, caption="Fields by standard"),
    ]


def _write_finding(one: FindingPart, pictures: Mapping[str, bytes]) -> str:
    values = [(name.replace("_", " "), _format(value)) for name, value in one.figures.items()]
    images = "".join(
        f"<figure>{markup}</figure>"
        for name in one.pictures
        if name in pictures
        and (markup := e.image(name, pictures[name], text=f"Picture of the result: {one.title}"))
    )
    told = (
        e.heading(one.title),
        e.paragraph(one.sentence, kind="says"),
        e.paragraph(f"What the attacker sees: {one.threat_model}"),
        e.value_list(values),
    )
    return f'<div class="finding">{"".join(told)}{images}</div>'


def _group_sums(rounds: Sequence[SumRound], *, signs: bool) -> list[tuple[str, ...]]:
    """Return one row for each run of rounds that went alike, training and testing apart."""
    found: list[tuple[list[int], tuple[str, ...]]] = []
    for purpose in dict.fromkeys(one.purpose for one in rounds):
        for one in (one for one in rounds if one.purpose == purpose):
            row = _list_sum(one, signs=signs)
            if found and found[-1][1] == row:
                found[-1][0].append(one.round)
            else:
                found.append(([one.round], row))
    return [(write_ranges(numbers).replace(",", ", "), *row) for numbers, row in found]


def _list_sum(one: SumRound, *, signs: bool) -> tuple[str, ...]:
    return (
        PURPOSES.get(one.purpose, one.purpose),
        f"{one.cohort}",
        NOTHING if one.threshold is None else f"{one.threshold}",
        f"{one.survivors}",
        f"{one.signatures} each" if signs else NOTHING,
        SUMMED if one.void is None else f"void: {one.void}",
    )


def _format_score(scores: Mapping[str, float], key: str) -> str:
    return f"{scores[key]:.3f}" if key in scores else NOTHING


def _join_arrays(toml: str) -> str:
    """Return TOML with each array on one line, as it is written by hand."""
    return re.sub(r"\[\n((?:    .*,\n)+)\]", lambda match: f"[{_join(match[1])}]", toml)


def _join(lines: str) -> str:
    return " ".join(line.strip() for line in lines.splitlines()).removesuffix(",")


def _format(value: float | int | str | None) -> str:
    if value is None:
        return NOTHING
    return f"{value:.4g}" if isinstance(value, float) else f"{value}"


def _label(key: str) -> str:
    label = label_metric(key)
    return f"{label[:1].upper()}{label[1:]}"


def _cut(key: str) -> str:
    return f"{key[:MOST_KEY]}…" if len(key) > 2 * MOST_KEY else key

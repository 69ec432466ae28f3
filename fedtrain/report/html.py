"""The page: `report.html`, one file that needs nothing else, for a reader who is no statistician.

No script, no font and no picture from elsewhere. It adds nothing to `report.json`: what is written
here is written there. It reads in grey, on paper, on a telephone, in the dark and aloud.
"""

from collections.abc import Callable, Mapping
from html import escape
from importlib import resources
from typing import Final

from fedtrain.report import elements as e
from fedtrain.report.document import Report, SignedReport
from fedtrain.report.figures import format_odds, format_percent, format_rate
from fedtrain.report.page_evidence import (
    write_aggregation,
    write_audit,
    write_config,
    write_data,
    write_limits,
    write_signatures,
    write_standards,
    write_utility,
)
from fedtrain.report.page_guarantee import write_guarantee, write_meaning, write_spending
from fedtrain.report.standards import SECTIONS
from fedtrain.report.tables import NOTHING, format_epsilon, format_time, label_metric
from fedtrain.report.verdict import find_strongest, get_bound, get_claim

Pictures = Mapping[str, bytes]
POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
CHECKING: Final = (
    "Every figure here can be computed again by someone who trusts neither the coordinator nor this"
    " page: fedtrain verify RUN, with the run directory, or fedtrain verify report.json alone. Both"
    " name what does not hold."
)


def render_page(signed: SignedReport, pictures: Pictures | None = None) -> str:
    """Return the page of a report.

    Args:
        signed: The report.
        pictures: Files of the audit, by name; those that are missing are left out.
    """
    report = signed.report
    writers: dict[str, Callable[[], list[str]]] = {
        "guarantee": lambda: write_guarantee(report),
        "meaning": lambda: write_meaning(report),
        "spending": lambda: write_spending(report),
        "aggregation": lambda: write_aggregation(report),
        "audit": lambda: write_audit(report, pictures or {}),
        "utility": lambda: write_utility(report),
        "data": lambda: write_data(report),
        "config": lambda: write_config(report),
        "limits": lambda: write_limits(report),
        "signatures": lambda: write_signatures(signed),
        "standards": lambda: write_standards(report),
    }
    sections = "".join(
        e.section(name, f"{number}. {SECTIONS[name]}", write())
        for number, (name, write) in enumerate(writers.items(), start=2)
    )
    title = escape(f"Privacy report: {report.run.name}")
    style = resources.files("fedtrain.report").joinpath("report.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="generator" content="fedtrain report">\n'
        f"<title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#verdict">To the verdict</a>\n'
        f"{_write_header(report)}\n<main>\n{_write_verdict(report)}\n{_write_contents()}\n"
        f"{sections}\n</main>\n{_write_footer(signed)}\n</body>\n</html>\n"
    )


def _write_header(report: Report) -> str:
    run = report.run
    kind = "Simulation on one machine" if run.simulated else "Federation of real sites"
    line = (
        f"{kind} · {run.sites} sites · {run.rounds_done} of {run.rounds_planned} rounds ·"
        f" {run.model} · begun {_format_day(run.started)}"
    )
    return (
        f"<header>{e.paragraph('Privacy report', kind='kind')}{e.heading(run.name, level=1)}"
        f"{e.paragraph(line, kind='kind')}</header>"
    )


def _write_verdict(report: Report) -> str:
    verdict = report.verdict
    items = "".join(f"<li>{e.inline(sentence)}</li>" for sentence in verdict.sentences)
    return (
        f'<section id="verdict" class="verdict {verdict.level}" aria-labelledby="verdict-title">'
        f"{e.heading(f'1. {verdict.title}', level=2, name='verdict-title')}"
        f"<ol>{items}</ol>{e.key_figures(_list_figures(report))}</section>"
    )


def _list_figures(report: Report) -> list[tuple[str, str, str]]:
    """Return the figures at the top: the bound, the attack it means, the audit, the model."""
    found = []
    for one in report.guarantees:
        number = "none" if one.epsilon is None else format_epsilon(one.epsilon)
        note = f"for {one.name}; fails with a chance of {format_odds(one.delta)}"
        if one.prefix == "coordinator_":
            note = f"{note}, against {one.against}"
        found.append(("Epsilon, at most", number, note))
    for meaning in report.meanings[:1]:
        attack = next(one for one in meaning.attacks if one.false_positive_rate == 0.01)
        rate = format_rate(attack.false_positive_rate)
        number = format_percent(attack.true_positive_rate)
        found.append(("Best attack finds", number, f"at most, accusing {rate} wrongly"))
    strongest = find_strongest(report.audit)
    if strongest is not None:
        low, claim = get_bound(strongest) or 0.0, get_claim(strongest)
        of = "" if claim is None else f"; claimed for what it attacks: at most {claim:.2f}"
        found.append(("Best attack tried shows", f"{low:.2f}", f"epsilon, at least{of}"))
    elif not report.audit.findings:
        found.append(("Attacks tried", "none", "the software is taken at its word"))
    for key, value in list(report.utility.scores.items())[:1]:
        found.append((label_metric(key).capitalize(), f"{value:.3f}", "on records held out"))
    return found


def _write_contents() -> str:
    items = "".join(f"<li>{e.link(name, title)}</li>" for name, title in SECTIONS.items())
    return f'<nav aria-labelledby="contents"><h2 id="contents">Contents</h2><ol>{items}</ol></nav>'


def _write_footer(signed: SignedReport) -> str:
    report = signed.report
    software = ", ".join(f"{name} {text}" for name, text in report.run.software.items())
    return (
        f"<footer>{e.paragraph(CHECKING)}"
        f"<p>Digest of this report: <code>{signed.digest}</code></p>"
        f"{e.paragraph(f'Run {report.run.run_id or NOTHING}. Software: {software or NOTHING}.')}"
        "</footer>"
    )


def _format_day(text: str) -> str:
    """Return the date of an ISO time as it was written, whatever zone the reader is in."""
    return text[:10] if len(text) >= 10 and text[4:5] == "-" else format_time(text)

"""Findings and self-tests as tables."""

from collections.abc import Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from fedtrain.audit.findings import Finding, describe_findings
from fedtrain.audit.power import Rate, SelfTest
from fedtrain.report.tables import NOTHING, make_table

_VERDICTS: Final = {
    "holds": "holds",
    "violated": "VIOLATED",
    "inconclusive": "inconclusive",
    "informative": "no claim",
}


def render_findings(findings: Sequence[Finding]) -> RenderableType:
    """Return the table of findings, with a line that counts them."""
    if not findings:
        return Text("Nothing of what these methods look at is in this run.")
    rows = [
        (
            finding.method,
            _VERDICTS[finding.verdict],
            f"{finding.sentence} ({finding.threat_model})",
            finding.unit,
            str(finding.sample_size),
            NOTHING if finding.confidence is None else f"{100 * finding.confidence:g} %",
        )
        for finding in findings
    ]
    headers = ("method", "claim", "found", "unit", "sample", "confidence")
    return Group(
        make_table(headers, rows, texts=3), Text(f"Claims: {describe_findings(findings)}.")
    )


def render_self_test(test: SelfTest, finding: Finding) -> RenderableType:
    """Return the table of rates, with the sentence."""
    rows = [_make_row(rate) for rate in test.rates]
    table = make_table(("method", "what runs", "alarms", "rate", "95 % interval"), rows, texts=2)
    lines: list[RenderableType] = [table, Text(finding.sentence)]
    if test.finding is not None:
        lines.append(Text(f"First alarm, {test.finding.method}: {test.finding.sentence}"))
    return Group(*lines)


def _make_row(rate: Rate) -> tuple[str, ...]:
    low, high = rate.interval
    return (
        rate.method,
        "the run as it is" if rate.plant is None else rate.plant,
        f"{rate.alarms} of {rate.runs}",
        f"{100 * rate.share:.0f} %",
        f"{100 * low:.1f} to {100 * high:.1f} %",
    )

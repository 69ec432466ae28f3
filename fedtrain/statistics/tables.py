"""Federated statistics as tables."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from rich.table import Table

from fedtrain.report.tables import NOTHING, make_table
from fedtrain.statistics.drift import Drift, Shift
from fedtrain.statistics.figures import ChoiceFigures, Figures, NumericFigures

_MOST_COLUMNS: Final = 9  # side by side in 100 characters
_MOST_PAIRS: Final = 20


def render_figures(figures: Figures) -> Iterator[Table]:
    """Yield a table of the numeric columns, one of the categorical ones and the labels."""
    withheld = f"fewer than {figures.min_records} records: withheld ({NOTHING})"
    records = NOTHING if figures.records is None else _format_count(figures.records, figures)
    if figures.numeric:
        headers = ("column", "records", "missing", "mean", "sd", "5 %", "median", "95 %")
        rows = [_make_row(column, figures) for column in figures.numeric]
        title = f"Numeric columns, {records} records of all sites; {withheld}"
        yield make_table(headers, rows, title=title)
    choices = [*figures.choices, *([figures.labels] if figures.labels else [])]
    if choices:
        rows = [row for choice in choices for row in _make_rows(choice, figures)]
        yield make_table(("column", "category", "records"), rows, title="Categories", texts=2)


def render_correlation(figures: Figures) -> Table | None:
    """Return the correlations, the strongest alone of many columns; None where there are none."""
    if figures.correlation is None:
        return None
    names = [column.name for column in figures.numeric]
    if len(names) > _MOST_COLUMNS:
        return _list_strongest(names, figures.correlation)
    rows = [
        [f"{number} {name}", *(NOTHING if value is None else f"{value:+.2f}" for value in line)]
        for number, (name, line) in enumerate(zip(names, figures.correlation, strict=True), 1)
    ]
    numbers = (str(number) for number in range(1, len(names) + 1))
    return make_table(("column", *numbers), rows, title="Correlation")


def _list_strongest(names: Sequence[str], lines: Sequence[Sequence[float | None]]) -> Table:
    pairs = [
        (value, names[i], names[j])
        for i, line in enumerate(lines)
        for j, value in enumerate(line[:i])
        if value is not None
    ]
    pairs.sort(key=lambda pair: -abs(pair[0]))
    title = f"Correlation, the {_MOST_PAIRS} strongest of {len(pairs)} pairs (--json: all)"
    rows = [[one, other, f"{value:+.2f}"] for value, one, other in pairs[:_MOST_PAIRS]]
    return make_table(("column", "and column", "correlation"), rows, title=title, texts=2)


def _make_row(column: NumericFigures, figures: Figures) -> list[str]:
    quantiles = [column.quantiles.get(share) for share in ("0.05", "0.5", "0.95")]
    numbers = [column.mean, None if column.variance is None else column.variance**0.5, *quantiles]
    return [
        column.name,
        NOTHING if column.count is None else _format_count(column.count, figures),
        _format_share(column.missing_share),
        *(NOTHING if number is None else f"{number:.4g}" for number in numbers),
    ]


def _make_rows(choice: ChoiceFigures, figures: Figures) -> list[list[str]]:
    rows = [[choice.name, name, _format_count(n, figures)] for name, n in choice.counts.items()]
    if choice.missing_share is not None:
        rows.append([choice.name, "missing", _format_share(choice.missing_share)])
    return rows or [[choice.name, "withheld", NOTHING]]


def _format_count(count: float, figures: Figures) -> str:
    text = f"{count:.0f}"
    return f"{text} ± {2 * figures.noise_stddev:.0f}" if figures.noise_stddev else text


def _format_share(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.1f} %"


def render_drift(drift: Drift) -> Table:
    """Return what shifted, largest first, the labels last."""
    shifts = [*drift.shifts, *([drift.label] if drift.label else [])]
    rows = [
        [
            shift.name,
            NOTHING if shift.index is None else f"{shift.index:.3f}",
            NOTHING if shift.index is None else f"{shift.chance:.3f}",
            _describe_cells(shift),
            "retrain" if shift.name in drift.drifted else NOTHING,
        ]
        for shift in shifts
    ]
    headers = ("column", "PSI", "by chance", "largest change", f"above {drift.threshold:g}")
    return make_table(headers, rows, title="Population stability, new data against training data")


def render_site_drift(drifts: Mapping[str, Drift | None]) -> Table:
    """Return each site's largest shift and its labels'; nothing of a site with few records."""
    rows = []
    for name, drift in drifts.items():
        told = [] if drift is None else [s for s in drift.shifts if s.index is not None]
        label = None if drift is None else drift.label
        rows.append(
            [
                name,
                told[0].name if told else NOTHING,
                f"{told[0].index:.3f}" if told else NOTHING,
                NOTHING if label is None or label.index is None else f"{label.index:.3f}",
                "retrain" if drift is not None and drift.drifted else NOTHING,
            ]
        )
    headers = ("site", "largest shift", "PSI", "PSI of labels", "verdict")
    return make_table(headers, rows, title="By site, for the site's own eyes", texts=2)


def _describe_cells(shift: Shift) -> str:
    """Return the cell that changed most."""
    if not shift.cells:
        return NOTHING
    triples = zip(shift.cells, shift.before, shift.after, strict=True)
    cell, before, after = max(triples, key=lambda triple: abs(triple[2] - triple[1]))
    return f"{cell}: {100 * before:.0f} % to {100 * after:.0f} %"

"""Measurements of DP-SGD as tables and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from rich.table import Table

from fedtrain.report.tables import NOTHING, format_bytes, make_table

from .dp import DpMeasurement
from .dp_contenders import CONTENDERS
from .dp_models import CASES

TITLES: Final = {
    "default": "as the C library comes",
    "keeping": "freed memory kept (MALLOC_MMAP_THRESHOLD_, MALLOC_TRIM_THRESHOLD_)",
}
WIDTH: Final = 150
LEGEND: Final = """\
One thread, contenders in turn: median milliseconds of a step, in brackets over plain SGD's in the
same run; then the memory that a step adds, over plain SGD's. All but plain SGD clip and add noise:
fedtrain from its own cryptographic generator (also shown without), Opacus from torch's. Opacus'
LSTM and attention are its own layers.
"""


def render_dp(found: Sequence[DpMeasurement], allocator: str) -> Table:
    """Return one table: a line for each model and batch, a column for each contender."""
    headers = ("model", "batch", *(title for title, _ in CONTENDERS.values()))
    rows = []
    for model, batch in dict.fromkeys((m.model, m.batch) for m in found):
        line = {m.contender: m for m in found if (m.model, m.batch, m.allocator) == (
            model, batch, allocator)}  # fmt: skip
        if line:
            cells = [_describe(line.get(name), line["plain"]) for name in CONTENDERS]
            rows.append((CASES[model].title, str(batch), *cells))
    return make_table(headers, rows, title=TITLES[allocator])


def to_json_dp(found: Sequence[DpMeasurement]) -> dict[str, Any]:
    """Return all measurements as values that JSON can hold, with their ratios to plain SGD."""
    plain = {(m.model, m.batch, m.allocator): m for m in found if m.contender == "plain"}
    rows = []
    for m in found:
        base = plain[m.model, m.batch, m.allocator]
        rows.append(
            asdict(m)
            | {
                "ratio": _divide(m.milliseconds, base.milliseconds),
                "memory_ratio": _divide(m.memory, base.memory),
            }
        )
    return {"rows": rows}


def _describe(m: DpMeasurement | None, plain: DpMeasurement) -> str:
    if m is None or m.milliseconds is None:
        return NOTHING
    ratio = _divide(m.milliseconds, plain.milliseconds)
    text = f"{m.milliseconds:.3g} ({ratio:.2f})"
    if m.memory is None:
        return text
    share = _divide(m.memory, plain.memory)
    return f"{text}\n{format_bytes(m.memory)}" + ("" if share is None else f" ({share:.2f})")


def _divide(value: float | None, base: float | None) -> float | None:
    return value / base if value is not None and base else None

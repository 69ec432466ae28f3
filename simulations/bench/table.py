"""Measurements as a table and as JSON."""

from collections.abc import Sequence
from typing import Any, Final

from rich.table import Table

from fedtrain.report.tables import NOTHING, format_bytes, make_table

from .simulate import ENTRIES, Measurement

HEADERS: Final = ("contender", "median s/round", "min s/round", "of bare", "peak memory")


def render_measurements(title: str, measurements: Sequence[Measurement]) -> Table:
    """Return one workload's table; the ratio is of medians."""
    bare = find_bare(measurements)
    rows = [
        (
            ENTRIES[m.contender].title,
            f"{m.median:.4f}",
            f"{min(m.seconds):.4f}",
            f"{m.median / bare:.2f}",
            format_bytes(m.memory),
        )
        if m.seconds
        else (f"{ENTRIES[m.contender].title} ({m.reason})", *[NOTHING] * 4)
        for m in measurements
    ]
    return make_table(HEADERS, rows, title=title)


def to_json(measurements: Sequence[Measurement]) -> list[dict[str, Any]]:
    """Return one workload's measurements as values that JSON can hold."""
    bare = find_bare(measurements)
    return [
        {
            "contender": m.contender,
            "median_seconds": m.median if m.seconds else None,
            "min_seconds": min(m.seconds) if m.seconds else None,
            "ratio": m.median / bare if m.seconds else None,
            "rounds": len(m.seconds),
            "peak_memory": m.memory,
            "reason": m.reason,
        }
        for m in measurements
    ]


def find_bare(measurements: Sequence[Measurement]) -> float:
    """Return the bare loop's median, in seconds."""
    return next(m.median for m in measurements if m.contender == "bare")

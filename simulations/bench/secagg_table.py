"""Measurements of secure aggregation as a table and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from rich.table import Table

from fedtrain.report.tables import NOTHING, format_bytes, make_table

from .secagg import SecaggMeasurement

WIDTH: Final = 190
HEADERS: Final = (
    "d",
    "n",
    "dropped",
    "encode",
    "site: keys",
    "mask",
    "of floor",
    "memory",
    "Flower",
    "up",
    "less shares / 4d",
    "down",
    "coord.: receive",
    "unmask",
    "of floor",
    "memory",
    "Flower",
)
LEGEND: Final = (
    "Milliseconds, the least of several. keys: advertise and share; mask; both over the site's\n"
    "floor: its n masks, keystream and one addition each, on one core. receive: one vector;\n"
    "unmask: from the shares to the sum, over the floor of the masks left in it, on all cores.\n"
    "Memory: at the site beyond its vector, at the coordinator with the sum. Flower: as many of\n"
    "its masks (one timed), without keys and shares."
)


def render_secagg(measurements: Sequence[SecaggMeasurement], *, threads: int) -> Table:
    """Return the table."""
    title = f"secure aggregation, {threads} threads at either side; every sum is exact"
    return make_table(HEADERS, [_make_row(one) for one in measurements], title=title, texts=0)


def to_json_secagg(measurements: Sequence[SecaggMeasurement], *, threads: int) -> dict[str, Any]:
    """Return the measurements as values that JSON can hold, seconds and bytes."""
    rows = [
        asdict(one) | {"site_ratio": one.site_ratio, "unmask_ratio": one.unmask_ratio}
        for one in measurements
    ]
    return {"threads": threads, "rows": rows}


def _make_row(one: SecaggMeasurement) -> tuple[str, ...]:
    return (
        f"{one.size:,}",
        f"{one.sites}",
        f"{one.dropped}",
        _format(one.encode),
        _format(one.keys),
        _format(one.mask),
        f"{one.site_ratio:.2f}",
        format_bytes(one.site_memory),
        _format(one.flower_site),
        format_bytes(one.up),
        f"{one.up_ratio:.3f}",
        format_bytes(one.down),
        _format(one.receive),
        _format(one.unmask),
        f"{one.unmask_ratio:.2f}",
        format_bytes(one.coordinator_memory),
        _format(one.flower_unmask),
    )


def _format(seconds: float | None) -> str:
    """Return milliseconds."""
    if seconds is None:
        return NOTHING
    return f"{1e3 * seconds:.2f}" if seconds < 0.01 else f"{1e3 * seconds:,.0f}"

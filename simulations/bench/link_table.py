"""Measurements of the link as a table and as JSON."""

import statistics
from typing import Any, Final

from rich.table import Table

from fedtrain.report.tables import NOTHING, format_bytes, make_table

from .link import FLOOR, OURS, LinkFindings, LinkMeasurement

WIDTH: Final = 120
HEADERS: Final = (
    "model",
    "contender",
    "median\ns",
    "min s",
    "of\nfloor",
    "processor\ns",
    "of\nfloor",
    "on the\nwire",
    "coordinator:\npeak",
    "of it,\nadded",
    "site:\npeak",
)
_TITLES: Final = {FLOOR: "TCP + TLS 1.3", OURS: "fedtrain"}
LEGEND: Final = (
    "A round trip to all sites and back. Processor: of all processes, more than there are cores:\n"
    "where other programs run, its ratio says more than the clock's. On the wire: both ways, with\n"
    "TLS's records. Peaks are of resident memory, with code and libraries."
)


def render_link(found: LinkFindings, *, sites: int) -> Table:
    """Return the table; ratios are of medians and of means."""
    rows = []
    for one in found.trips:
        floor = _find_floor(found, one.size)
        last = one.rounds[-1]
        added = max(r.memory - r.memory_before for r in one.rounds)
        rows.append(
            (
                f"{one.size / 1e6:g} MB" if one.size else "empty",
                _TITLES[one.contender],
                f"{one.seconds:.4f}",
                f"{min(r.seconds for r in one.rounds):.4f}",
                NOTHING if one is floor else f"{one.seconds / floor.seconds:.2f}",
                f"{one.work:.3f}",
                NOTHING if one is floor or not floor.work else f"{one.work / floor.work:.2f}",
                format_bytes(last.wire),
                format_bytes(max(r.memory for r in one.rounds)),
                format_bytes(added),
                format_bytes(max(r.site_memory for r in one.rounds)),
            )
        )
    return make_table(HEADERS, rows, title=f"{sites} sites on loopback")


def describe_secure(found: LinkFindings) -> str:
    """Return a line on the rounds with secure aggregation; empty where none were made."""
    if not found.secure:
        return ""
    return (
        f"A round of a run with record-level privacy and secure aggregation: median"
        f" {statistics.median(found.secure):.3f} s, min {min(found.secure):.3f} s of"
        f" {len(found.secure)}."
    )


def to_json_link(found: LinkFindings, *, sites: int) -> dict[str, Any]:
    """Return measurements as values that JSON can hold."""
    return {
        "sites": sites,
        "trips": [
            {
                "contender": one.contender,
                "bytes": one.size,
                "median_seconds": one.seconds,
                "min_seconds": min(r.seconds for r in one.rounds),
                "work": one.work,
                "rounds": len(one.rounds),
                "wire": one.rounds[-1].wire,
                "memory": max(r.memory for r in one.rounds),
                "memory_added": max(r.memory - r.memory_before for r in one.rounds),
                "site_memory": max(r.site_memory for r in one.rounds),
            }
            for one in found.trips
        ],
        "secure_seconds": list(found.secure),
    }


def _find_floor(found: LinkFindings, size: int) -> LinkMeasurement:
    return next(one for one in found.trips if (one.contender, one.size) == (FLOOR, size))

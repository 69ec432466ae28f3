"""Accuracy and bytes of compressed runs as a table and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from rich.table import Table

from fedtrain.report.tables import make_table

from .compression import Compressed

LEGEND: Final = (
    "Accuracy of the last model on all sites' test records; bytes that all sites together send in a"
    " round of training, keys and shares of the protocol included. Updates of 16 bits have a word"
    " each, as without: a cohort's sum leaves no room for a second. Pruning and weights of 8 bits"
    " are of the model: what is sent in a round is as before.\n"
)


def render_compression(found: Sequence[Compressed]) -> Table:
    """Return one row a case; the first is what others are compared with."""
    whole = found[0].bytes_up
    rows = [
        [
            one.case,
            f"{one.accuracy:.1%}",
            f"{one.bytes_up:,}",
            f"{one.bytes_up / whole:.0%}",
            f"{one.seconds:.1f}",
        ]
        for one in found
    ]
    return make_table(("compressed", "accuracy", "bytes a round", "of all", "seconds"), rows)


def to_json_compression(found: Sequence[Compressed]) -> dict[str, Any]:
    """Return the outcomes as values that JSON can hold."""
    return {"outcomes": [asdict(one) for one in found]}

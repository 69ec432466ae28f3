"""Numbers as text, and tables of them: one look for every command."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

MIN_WIDTH: Final = 100  # columns where the output is not a terminal
NOTHING: Final = "-"


def make_console(file: TextIO, min_width: int = MIN_WIDTH) -> Console:
    """Make a console; where there is no terminal it writes plain text, `min_width` or wider."""
    console = Console(file=file, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(
            file=file,
            highlight=False,
            markup=False,
            emoji=False,
            color_system=None,
            width=max(min_width, console.width),
        )
    return console


def make_table(
    headers: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "", texts: int = 1
) -> Table:
    """Make a table.

    Args:
        headers: Names of the columns.
        rows: Cells.
        title: A line above.
        texts: So many columns, from the left, hold text and fold; the others hold numbers.

    Returns:
        The table; a column in which no row has a value is left out.
    """
    cells = [list(row) for row in rows]
    table = Table(
        box=box.SIMPLE_HEAD,
        title=title or None,
        title_justify="left",
        title_style="bold",
        pad_edge=False,
        collapse_padding=True,
    )
    kept = [
        index
        for index, header in enumerate(headers)
        if index < texts or not cells or any(row[index] != NOTHING for row in cells)
    ]
    for index in kept:
        if index < texts:
            table.add_column(Text(headers[index]), overflow="fold", min_width=6)
        else:
            table.add_column(Text(headers[index]), justify="right", no_wrap=True)
    for row in cells:
        table.add_row(*(Text(row[index]) for index in kept))
    return table


def make_facts(facts: Iterable[tuple[str, str]]) -> Table:
    """Make a list of names with values, without lines."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(Text(name), Text(value))
    return table


def label_metric(key: str) -> str:
    """Return the name of a metric for people: `val_loss` is `validation loss`."""
    words = {"val": "validation", "auc": "AUC", "f1": "F1", "ece": "calibration error"}
    words |= {"mae": "MAE", "rmse": "RMSE", "r2": "R2"}
    if key.endswith("recall_at_5"):
        return f"{label_metric(key.removesuffix('_at_5'))} at 5 % false alarms"
    return " ".join(words.get(word, word) for word in key.split("_"))


def format_number(value: float | None, digits: int = 4) -> str:
    """Return a number with so many digits after the point; `-` for none."""
    return NOTHING if value is None else f"{value:.{digits}f}"


def format_epsilon(value: float | None) -> str:
    """Return an epsilon rounded up, never down, in its third significant digit; `-` for none."""
    if value is None:
        return NOTHING
    digits = 2 if value >= 1 else 3 if value >= 0.1 else 4
    rounded = round(value, digits)
    return f"{rounded if rounded >= value else rounded + 10**-digits:.{digits}f}"


def format_seconds(seconds: float | None) -> str:
    """Return a duration for people: `0.31 s`, `42 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds is None:
        return NOTHING
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def format_bytes(count: float | None) -> str:
    """Return a number of bytes for people: `512 B`, `1.4 MiB`."""
    if count is None:
        return NOTHING
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def format_joules(joules: float | None) -> str:
    """Return an energy for people: `0.31 J`, `420 J`, `1.4 Wh`, `2.1 kWh`."""
    if joules is None:
        return NOTHING
    if joules < 3600:
        return f"{joules:.2g} J" if joules < 10 else f"{joules:.0f} J"
    hours = joules / 3600
    return f"{hours:.1f} Wh" if hours < 1000 else f"{hours / 1000:.1f} kWh"


def format_count(number: object, noun: str) -> str:
    """Return a number with its noun: `1 step`, `4 steps`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def format_time(text: str | None) -> str:
    """Return an ISO time as local date and minute; the text itself where it is none."""
    try:
        return datetime.fromisoformat(text or "").astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return text or NOTHING


def thin(count: int, limit: int, keep: Iterable[int] = ()) -> list[int]:
    """Choose at most about `limit` of `count` positions, evenly, with the ends and those to keep.

    Args:
        count: Number of positions.
        limit: Number wanted, at least 2.
        keep: Positions that stay in any case; those out of range are ignored.

    Returns:
        Positions, rising.
    """
    if count <= limit:
        return list(range(count))
    chosen = {round(index * (count - 1) / (limit - 1)) for index in range(limit)}
    return sorted(chosen | {index for index in keep if 0 <= index < count})

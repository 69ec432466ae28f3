"""Elements of the page: every text is escaped here, and nowhere else is markup made of texts."""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

Row = Sequence[str]
_KINDS: Final = {".png": "image/png", ".svg": "image/svg+xml"}


def paragraph(text: str, *, kind: str = "") -> str:
    """Return a paragraph of plain text."""
    return f"<p{_class(kind)}>{escape(text)}</p>"


def bullets(texts: Iterable[str], *, ordered: bool = False) -> str:
    """Return a list of plain texts; nothing for none."""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    tag = "ol" if ordered else "ul"
    return f"<{tag}>{items}</{tag}>" if items else ""


def heading(text: str, *, level: int = 3, name: str = "") -> str:
    """Return a heading."""
    ident = f' id="{escape(name)}"' if name else ""
    return f"<h{level}{ident}>{escape(text)}</h{level}>"


def section(name: str, title: str, parts: Iterable[str]) -> str:
    """Return a section, a landmark named by its heading."""
    return (
        f'<section id="{name}" aria-labelledby="{name}-title">'
        f"{heading(title, level=2, name=f'{name}-title')}{''.join(parts)}</section>"
    )


def table(headers: Row, rows: Iterable[Row], *, caption: str, figures: Iterable[int] = ()) -> str:
    """Return a table whose first column heads its rows; it scrolls by itself where it is wide.

    Args:
        headers: Of the columns.
        rows: Plain texts.
        caption: What it shows.
        figures: Columns of numbers, aligned right.
    """
    right = set(figures)
    head = "".join(
        f'<th scope="col"{_class("figure" if index in right else "")}>{escape(text)}</th>'
        for index, text in enumerate(headers)
    )
    body = "".join(_row(row, right) for row in rows)
    return _scroll(
        f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>",
        caption,
    )


def fact_table(facts: Iterable[tuple[str, str, str]], *, caption: str) -> str:
    """Return a table of numbers, names and texts, one fact a row."""
    rows = "".join(
        f'<tr><th scope="row">{_order(number)}{escape(name)}</th><td>{escape(text)}</td></tr>'
        for number, name, text in facts
    )
    return _scroll(
        f'<table class="facts"><caption>{escape(caption)}</caption><tbody>{rows}</tbody></table>',
        caption,
    )


def key_figures(figures: Iterable[tuple[str, str, str]]) -> str:
    """Return the figures at the top: a name, a number and what it means."""
    items = "".join(
        f'<div><dt>{escape(name)}</dt><dd><span class="number">{escape(number)}</span>'
        f"<small>{escape(note)}</small></dd></div>"
        for name, number, note in figures
    )
    return f'<dl class="figures">{items}</dl>'


def figure(picture: str, caption: str) -> str:
    """Return a picture, markup of ours, with its caption."""
    return f"<figure>{picture}<figcaption>{escape(caption)}</figcaption></figure>"


def image(name: str, content: bytes, *, text: str) -> str:
    """Return a picture file inside the page; nothing for a kind that pages do not show."""
    kind = next((kind for suffix, kind in _KINDS.items() if name.lower().endswith(suffix)), None)
    if kind is None:
        return ""
    data = b64encode(content).decode("ascii")
    return f'<img src="data:{kind};base64,{data}" alt="{escape(text)}">'


def link(section_name: str, text: str) -> str:
    """Return a link to a section of the page."""
    return f'<a href="#{escape(section_name)}">{escape(text)}</a>'


def linked_table(headers: Row, rows: Iterable[tuple[Row, str, str]], *, caption: str) -> str:
    """Return a table whose last column links to a section: cells, its name, its title."""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in headers)
    body = ""
    for cells, name, title in rows:
        first, *rest = (escape(cell) for cell in cells)
        body += (
            f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}'
            f"<td>{link(name, title)}</td></tr>"
        )
    return _scroll(
        f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>",
        caption,
    )


def verbatim(text: str) -> str:
    """Return text with its line breaks, in a face of one width."""
    return f"<pre><code>{escape(text)}</code></pre>"


def _row(row: Row, right: set[int]) -> str:
    first, *rest = row
    cells = "".join(
        f"<td{_class('figure' if index in right else '')}>{escape(text)}</td>"
        for index, text in enumerate(rest, start=1)
    )
    return f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>'


def _scroll(markup: str, caption: str) -> str:
    """Return a table in a region of its own, which the keyboard reaches."""
    label = escape(caption)
    return f'<div class="table" role="region" aria-label="{label}" tabindex="0">{markup}</div>'


def _order(number: str) -> str:
    return f'<span class="order">{escape(number)}</span>' if number else ""


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""

"""Elements of the page: every text is escaped here, and nowhere else is markup made of texts."""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Final

Row = Sequence[str]
_KINDS: Final = {".png": "image/png", ".svg": "image/svg+xml"}


def _escape(text: str) -> str:
    """Return text as markup; a number stays with its percent sign."""
    return escape(text).replace(" %", "&nbsp;%")


def inline(text: str) -> str:
    """Return plain text as markup."""
    return _escape(text)


def paragraph(text: str, *, kind: str = "") -> str:
    """Return a paragraph of plain text."""
    return f"<p{_class(kind)}>{_escape(text)}</p>"


def bullets(texts: Iterable[str], *, ordered: bool = False) -> str:
    """Return a list of plain texts; nothing for none."""
    items = "".join(f"<li>{_escape(text)}</li>" for text in texts)
    tag = "ol" if ordered else "ul"
    return f"<{tag}>{items}</{tag}>" if items else ""


def heading(text: str, *, level: int = 3, name: str = "") -> str:
    """Return a heading."""
    ident = f' id="{_escape(name)}"' if name else ""
    return f"<h{level}{ident}>{_escape(text)}</h{level}>"


def section(name: str, title: str, parts: Iterable[str]) -> str:
    """Return a section, a landmark named by its heading."""
    return (
        f'<section id="{name}" aria-labelledby="{name}-title">'
        f"{heading(title, level=2, name=f'{name}-title')}{''.join(parts)}</section>"
    )


def table(
    headers: Row,
    rows: Iterable[Row],
    *,
    caption: str,
    figures: Iterable[int] = (),
    codes: Iterable[int] = (),
) -> str:
    """Return a table whose first column heads its rows; it scrolls by itself where it is wide.

    Args:
        headers: Of the columns.
        rows: Plain texts.
        caption: What it shows.
        figures: Columns of numbers, aligned right.
        codes: Columns of digests and keys.
    """
    kinds = dict.fromkeys(figures, "figure") | dict.fromkeys(codes, "code")
    head = "".join(
        f'<th scope="col"{_class(kinds.get(index, ""))}>{_escape(text)}</th>'
        for index, text in enumerate(headers)
    )
    body = "".join(_row(row, kinds) for row in rows)
    return _scroll(
        f"<table><caption>{_escape(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>",
        caption,
    )


def fact_table(facts: Iterable[tuple[str, str, str]], *, caption: str) -> str:
    """Return a table of numbers, names and texts, one fact a row.

    Its roles are written out, since a telephone shows it as blocks, which else are no table.
    """
    rows = "".join(
        f'<tr role="row"><th role="rowheader" scope="row">{_order(number)}{_escape(name)}</th>'
        f'<td role="cell">{_escape(text)}</td></tr>'
        for number, name, text in facts
    )
    return _scroll(
        f'<table class="facts" role="table"><caption>{_escape(caption)}</caption>'
        f'<tbody role="rowgroup">{rows}</tbody></table>',
        caption,
    )


def key_figures(figures: Iterable[tuple[str, str, str]]) -> str:
    """Return the figures at the top: a name, a number and what it means."""
    items = "".join(
        f'<div><dt>{_escape(name)}</dt><dd><span class="number">{_escape(number)}</span>'
        f"<small>{_escape(note)}</small></dd></div>"
        for name, number, note in figures
    )
    return f'<dl class="figures">{items}</dl>'


def value_list(values: Iterable[tuple[str, str]]) -> str:
    """Return names with short values, in two columns where there is room."""
    items = "".join(
        f"<div><dt>{_escape(name)}</dt><dd>{_escape(value)}</dd></div>" for name, value in values
    )
    return f'<dl class="values">{items}</dl>' if items else ""


def figure(picture: str, caption: str) -> str:
    """Return a picture, markup of ours, with its caption."""
    return f"<figure>{picture}<figcaption>{_escape(caption)}</figcaption></figure>"


def image(name: str, content: bytes, *, text: str) -> str:
    """Return a picture file inside the page; nothing for a kind that pages do not show."""
    kind = next((kind for suffix, kind in _KINDS.items() if name.lower().endswith(suffix)), None)
    if kind is None:
        return ""
    data = b64encode(content).decode("ascii")
    return f'<img src="data:{kind};base64,{data}" alt="{_escape(text)}">'


def link(section_name: str, text: str) -> str:
    """Return a link to a section of the page."""
    return f'<a href="#{_escape(section_name)}">{_escape(text)}</a>'


def linked_table(headers: Row, rows: Iterable[tuple[Row, str, str, str]], *, caption: str) -> str:
    """Return a table in groups whose last column links to a section.

    Args:
        headers: Of the columns.
        rows: Cells, a section's name and its title, and the group; groups follow each other.
        caption: What it shows.
    """
    head = "".join(f'<th scope="col">{_escape(text)}</th>' for text in headers)
    body = ""
    for group, members in groupby(rows, key=lambda row: row[3]):
        body += (
            f'<tbody><tr class="group"><th scope="rowgroup" colspan="{len(headers)}">'
            f"{_escape(group)}</th></tr>{''.join(map(_linked_row, members))}</tbody>"
        )
    return _scroll(
        f"<table><caption>{_escape(caption)}</caption><thead><tr>{head}</tr></thead>{body}</table>",
        caption,
    )


def verbatim(text: str) -> str:
    """Return text with its line breaks, in a face of one width."""
    return f"<pre><code>{_escape(text)}</code></pre>"


def _row(row: Row, kinds: Mapping[int, str]) -> str:
    first, *rest = row
    cells = "".join(
        f"<td{_class(kinds.get(index, ''))}>{_escape(text)}</td>"
        for index, text in enumerate(rest, start=1)
    )
    return f'<tr><th scope="row">{_escape(first)}</th>{cells}</tr>'


def _linked_row(row: tuple[Row, str, str, str]) -> str:
    cells, name, title, _ = row
    first, *rest = (_escape(cell) for cell in cells)
    middle = "".join(f"<td>{cell}</td>" for cell in rest)
    return f'<tr><th scope="row">{first}</th>{middle}<td>{link(name, title)}</td></tr>'


def _scroll(markup: str, caption: str) -> str:
    """Return a table in a region of its own, which the keyboard reaches."""
    label = _escape(caption)
    return f'<div class="table" role="region" aria-label="{label}" tabindex="0">{markup}</div>'


def _order(number: str) -> str:
    return f'<span class="order">{_escape(number)}</span>' if number else ""


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""

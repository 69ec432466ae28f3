"""Pictures of a report as inline SVG: small, drawn for a page that is also printed in grey.

Each has a title and a description that says the same in words. Lines differ by dashes, marks by
shape and all of it by labels, never by colour alone. Colours are the page's own.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from fedtrain.report.document import Attack, Belief
from fedtrain.report.figures import format_percent, format_rate

WIDTH: Final = 420
ROW: Final = 34
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 26, 14, 44
LONG_LABEL: Final = 50
_LABEL_WIDTH: Final = 22  # characters of a label that fit beside a bar
_TICKS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Bar:
    """A row of a bar picture: a label, a value, and the value in words."""

    label: str
    value: float
    text: str


@dataclass(frozen=True)
class Bound:
    """A lower bound of epsilon, and what is claimed of what was attacked; None: nothing."""

    label: str
    low: float
    claimed: float | None


@dataclass(frozen=True)
class Dot:
    """A point of a scatter picture."""

    label: str
    x: float
    y: float


def draw_trade_off(curve: Sequence[Attack], attacks: Sequence[Attack], *, name: str) -> str:
    """Draw the most that any attack finds against what it accuses wrongly."""
    height = 330
    frame = _Frame(WIDTH, height)
    points = [(one.false_positive_rate, one.true_positive_rate) for one in curve]
    beyond = [(0.0, 1.0), *points]
    parts = [
        _polygon([frame.place(x, y) for x, y in beyond], "unreached"),
        *_grid(frame),
        _path([frame.place(0, 0), frame.place(1, 1)], "guess"),
        _path([frame.place(x, y) for x, y in points], "curve"),
    ]
    for one in attacks:
        x, y = frame.place(one.false_positive_rate, one.true_positive_rate)
        parts.append(_circle(x, y, "mark"))
    shown = attacks[-1]
    x, y = frame.place(shown.false_positive_rate, shown.true_positive_rate)
    told = (
        f"{format_rate(shown.false_positive_rate)} wrong:"
        f" at most {format_percent(shown.true_positive_rate)} found"
    )
    parts += [
        _text(x + 12, y + 5, told, "label"),
        _text(*frame.place(0.06, 0.93), "no attack comes here", "quiet"),
        _text(*frame.place(0.68, 0.58), "guessing", "quiet"),
        *_name_axes(
            frame, x="share of outsiders accused wrongly", y="share of insiders found, at most"
        ),
    ]
    worded = "; ".join(
        f"accusing {format_rate(one.false_positive_rate)} wrongly, it finds at most"
        f" {format_percent(one.true_positive_rate)}"
        for one in attacks
    )
    description = (
        f"The best attack on {name}: {worded}. Guessing finds as many as it accuses wrongly."
    )
    return _wrap(parts, (WIDTH, height), title="Trade-off curve", description=description)


def draw_beliefs(beliefs: Sequence[Belief]) -> str:
    """Draw from which suspicion to which certainty the release can lead at most."""
    height = _TOP + ROW * len(beliefs) + _BOTTOM
    frame = _Frame(WIDTH, height)
    parts = _grid(frame, rows=False)
    for index, one in enumerate(beliefs):
        y = _TOP + ROW * (index + 0.6)
        before, after = frame.place(one.prior, 0)[0], frame.place(one.posterior, 0)[0]
        parts.append(
            f'<line class="stem" x1="{before:.1f}" y1="{y:.1f}" x2="{after:.1f}" y2="{y:.1f}"/>'
        )
        parts += [_circle(before, y, "hollow"), _circle(after, y, "mark")]
        at = after - 9 if one.posterior > 0.75 else after + 9
        anchor = "end" if one.posterior > 0.75 else "start"
        parts.append(_text(at, y - 8, format_percent(one.posterior), "label", anchor=anchor))
        parts.append(_text(_LEFT - 8, y + 4, format_rate(one.prior), "tick", anchor="end"))
    parts.append(_text(frame.middle, height - 8, "belief after, at most", "axis", anchor="middle"))
    worded = "; ".join(
        f"from {format_rate(one.prior)} to at most {format_percent(one.posterior)}"
        for one in beliefs
    )
    title = "What a suspicion can become"
    return _wrap(parts, (WIDTH, height), title=title, description=f"{title}: {worded}.")


def draw_bars(
    bars: Sequence[Bar], *, title: str, limit: float | None = None, limit_name: str = ""
) -> str:
    """Draw values as bars with their texts, and a limit as a dashed line."""
    top = max([bar.value for bar in bars] + ([limit] if limit is not None else [])) or 1.0
    left, right = 150, 64
    span, height = WIDTH - left - right, 12 + ROW * len(bars) + (26 if limit is not None else 6)
    parts = []
    for index, bar in enumerate(bars):
        y, length = 12 + ROW * index, max(1.0, span * bar.value / top)
        parts += [
            _text(left - 10, y + 15, _shorten(bar.label), "tick", anchor="end"),
            f'<rect class="bar" x="{left}" y="{y:.1f}" width="{length:.1f}" height="20"/>',
            _text(left + length + 7, y + 15, bar.text, "label"),
        ]
    if limit is not None:
        x = left + span * limit / top
        parts.append(_path([(x, 4), (x, height - 22)], "limit"))
        parts.append(_text(x, height - 6, limit_name, "quiet", anchor="end"))
    worded = "; ".join(f"{bar.label}: {bar.text}" for bar in bars)
    description = f"{worded}. {limit_name}".rstrip(". ") + "."
    return _wrap(parts, (WIDTH, height), title=title, description=description)


def draw_bounds(bounds: Sequence[Bound]) -> str:
    """Draw lower bounds of epsilon from attacks, each beside what is claimed of what it attacks."""
    top = 1.1 * max([1e-9, *(max(one.low, one.claimed or 0.0) for one in bounds)])
    left, right, row = 24, 34, 50
    span, height = WIDTH - left - right, 8 + row * len(bounds) + 34
    parts = []
    for value in _choose_ticks(top):
        x = left + span * value / top
        parts.append(_path([(x, 8), (x, height - 34)], "rule"))
        parts.append(_text(x, height - 19, f"{value:g}", "tick", anchor="middle"))
    for index, one in enumerate(bounds):
        y, at = 8 + row * index + 34, left + span * one.low / top
        parts.append(_text(left, y - 15, _shorten(one.label, LONG_LABEL), "label"))
        parts.append(_path([(left, y), (at, y)], "stem"))
        parts.append(_circle(at, y, "mark"))
        if one.claimed is not None:
            claim = left + span * one.claimed / top
            parts.append(_path([(claim, y - 8), (claim, y + 8)], "claim"))
    parts.append(_text(left + span / 2, height - 4, "epsilon", "axis", anchor="middle"))
    worded = "; ".join(
        f"{one.label}: at least {one.low:.2f}"
        + ("" if one.claimed is None else f", claimed at most {one.claimed:.2f}")
        for one in bounds
    )
    description = f"Lower bounds of epsilon by attacks. {worded}."
    return _wrap(parts, (WIDTH, height), title="Attacks beside the bound", description=description)


def draw_scatter(dots: Sequence[Dot], *, x_name: str, y_name: str) -> str:
    """Draw several runs as labelled points: utility against epsilon."""
    height = 330
    low = math.floor(20 * min(dot.y for dot in dots) - 0.5) / 20
    high = math.ceil(20 * max(dot.y for dot in dots) + 0.2) / 20
    frame = _Frame(
        WIDTH, height, right=1.15 * max(dot.x for dot in dots), low=max(0.0, low), high=high
    )
    parts = _grid(frame, numbers=True)
    for index, dot in enumerate(sorted(dots, key=lambda one: (one.x, one.y))):
        x, y = frame.place(dot.x, dot.y)
        near_right = x > WIDTH * 0.6
        parts += [
            _circle(x, y, "mark" if index % 2 == 0 else "hollow"),
            _text(
                x - 9 if near_right else x + 9,
                y - 8,
                _shorten(dot.label),
                "label",
                anchor="end" if near_right else "start",
            ),
        ]
    parts += _name_axes(frame, x=x_name, y=y_name)
    worded = "; ".join(f"{dot.label}: {x_name} {dot.x:.2f}, {y_name} {dot.y:.3f}" for dot in dots)
    title = f"{y_name} against {x_name}"
    return _wrap(parts, (WIDTH, height), title=title, description=f"{worded}.")


@dataclass(frozen=True)
class _Frame:
    """A plotting area inside a picture, and what its edges stand for."""

    width: float
    height: float
    left: float = 0.0
    right: float = 1.0
    low: float = 0.0
    high: float = 1.0

    @property
    def middle(self) -> float:
        return (_LEFT + self.width - _RIGHT) / 2

    def place(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.left) / (self.right - self.left)
        up = (y - self.low) / (self.high - self.low)
        return (
            _LEFT + across * (self.width - _LEFT - _RIGHT),
            self.height - _BOTTOM - up * (self.height - _TOP - _BOTTOM),
        )


def _grid(frame: _Frame, *, rows: bool = True, numbers: bool = False) -> list[str]:
    """Return thin lines with their values, as percent or as numbers."""
    parts = []
    for tick in _TICKS:
        x_value = frame.left + tick * (frame.right - frame.left)
        y_value = frame.low + tick * (frame.high - frame.low)
        x, base = frame.place(x_value, frame.low)
        parts.append(_path([(x, base), frame.place(x_value, frame.high)], "rule"))
        text = f"{x_value:.1f}" if numbers else f"{100 * tick:.0f} %"
        parts.append(_text(x, base + 18, text, "tick", anchor="middle"))
        if rows:
            left, y = frame.place(frame.left, y_value)
            parts.append(_path([(left, y), frame.place(frame.right, y_value)], "rule"))
            text = f"{y_value:.2f}" if numbers else f"{100 * tick:.0f} %"
            parts.append(_text(left - 7, y + 4, text, "tick", anchor="end"))
    return parts


def _name_axes(frame: _Frame, *, x: str, y: str) -> Iterable[str]:
    yield _text(frame.middle, frame.height - 8, x, "axis", anchor="middle")
    yield _text(_LEFT + 4, _TOP - 3, y, "axis")


def _choose_ticks(top: float) -> list[float]:
    """Return three to five round numbers from 0 to at most `top`."""
    size = 10.0 ** math.floor(math.log10(top / 4))
    step = next(factor * size for factor in (1, 2, 2.5, 5, 10) if factor * size >= top / 4)
    return [round(index * step, 12) for index in range(math.floor(top / step) + 1)]


def _shorten(label: str, width: int = _LABEL_WIDTH) -> str:
    return label if len(label) <= width else f"{label[: width - 1]}…"


def _text(x: float, y: float, text: str, kind: str, *, anchor: str = "start") -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _circle(x: float, y: float, kind: str) -> str:
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'


def _path(points: Sequence[tuple[float, float]], kind: str) -> str:
    return f'<path class="{kind}" d="M{_join(points, "L")}"/>'


def _polygon(points: Sequence[tuple[float, float]], kind: str) -> str:
    return f'<polygon class="{kind}" points="{_join(points, " ")}"/>'


def _join(points: Sequence[tuple[float, float]], separator: str) -> str:
    return separator.join(f"{x:.1f},{y:.1f}" for x, y in points)


def _wrap(parts: Iterable[str], size: tuple[float, float], *, title: str, description: str) -> str:
    """Return the element; its name and description are read out in place of its parts."""
    width, height = size
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img"'
        f' aria-label="{escape(title)}. {escape(description)}">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>{''.join(parts)}</svg>"
    )

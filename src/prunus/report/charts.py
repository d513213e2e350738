"""Charts as inline SVG: pure functions from numbers to markup, in the page's own colours, light and dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from prunus.console import human

WIDTH, HEIGHT = 560, 270
_RIGHT, _TOP, _BOTTOM = 32, 12, 40
_LEFT = 56
"""The least room left of a chart, for the label of the y axis and its ticks."""
_DIGIT = 7.0
"""Width of a character of a tick in pixels, as an upper estimate for 12-pixel fonts."""
_LETTER = 6.3
"""Mean width of a character of a label."""
_LINES = 8
"""Ticks on a logarithmic y axis, at most."""
LARGEST = 1e300
"""Beyond it the differences between ticks are no longer numbers."""
SERIES = 8
"""Colours that the page defines, `--series-0` to `--series-7`; further lines repeat them with the next dash."""
DASHES = ("", "6 4", "2 3", "9 3 2 3")


@dataclass(frozen=True)
class Series:
    """A named line: its points in order of x."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class _Axis:
    """One axis: its range, its label, and its ticks as pairs of value and text."""

    low: float
    high: float
    label: str
    ticks: Sequence[tuple[float, str]]


def line_chart(
    series: Sequence[Series], x_label: str, y_label: str, log_y: bool = False, reversed_y: bool = False
) -> str:
    """Lines over a common x axis. Points that an axis cannot show are left out.

    Args:
        series: The lines.
        x_label: What x counts.
        y_label: What y counts.
        log_y: Whether the y axis is logarithmic.
        reversed_y: Whether the smallest y is at the top.
    """
    shown = [Series(s.name, [p for p in s.points if abs(p[1]) < LARGEST and (p[1] > 0 or not log_y)]) for s in series]
    shown = [s for s in shown if s.points]
    if not shown:
        return _empty()
    ys = [math.log10(y) if log_y else y for s in shown for _, y in s.points]
    x = _linear([x for s in shown for x, _ in s.points], x_label)
    y = _logarithmic(ys, y_label) if log_y else _linear(ys, y_label)
    left = _room(y)
    x_of = _scale(x.low, x.high, left, WIDTH - _RIGHT)
    y_of = _scale(y.low, y.high, *((_TOP, HEIGHT - _BOTTOM) if reversed_y else (HEIGHT - _BOTTOM, _TOP)))
    parts = [*_grid(y_of, y, left), *_columns(x_of, x, left)]
    for number, s in enumerate(shown):
        places = [(x_of(x), y_of(math.log10(y) if log_y else y)) for x, y in s.points]
        title = f"<title>{escape(s.name)}</title>"
        if len(places) == 1:  # a line through one point is invisible
            dot = f'cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="3"'
            parts.append(f'<circle class="point" style="{_stroke(number)}" {dot}>{title}</circle>')
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline class="line" style="{_stroke(number)}" points="{points}">{title}</polyline>')
    return _svg(parts, f"{y.label} by {x.label}") + _legend([s.name for s in shown])


def scatter_chart(points: Sequence[tuple[str, float, float]], front: Sequence[str], x_label: str, y_label: str) -> str:
    """A dot for each point (name, x, y), and a line through the points that `front` names."""
    if not points:
        return _empty()
    x, y = _linear([x for _, x, _ in points], x_label), _linear([y for _, _, y in points], y_label)
    left = _room(y)
    x_of, y_of = _scale(x.low, x.high, left, WIDTH - _RIGHT), _scale(y.low, y.high, HEIGHT - _BOTTOM, _TOP)
    parts = [*_grid(y_of, y, left), *_columns(x_of, x, left)]
    best = sorted((x, y) for name, x, y in points if name in front)
    line = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in best)
    parts.append(f'<polyline class="line" style="{_stroke(0)}" points="{line}"/>')
    for name, at, value in points:
        title = f"<title>{escape(name)}: {at:.4g}, {value:.4g}</title>"
        parts.append(f'<circle class="dot" cx="{x_of(at):.1f}" cy="{y_of(value):.1f}" r="4.5">{title}</circle>')
    return _svg(parts, f"{y_label} by {x_label}")


def bar_chart(values: Sequence[float], labels: Sequence[str], y_label: str, x_label: str = "") -> str:
    """One bar for each value, in the order given."""
    if not values:
        return _empty()
    y = _linear([min(*values, 0.0), max(*values, 0.0) or 1.0], y_label)
    y_of, left = _scale(y.low, y.high, HEIGHT - _BOTTOM, _TOP), _room(y)
    step = (WIDTH - left - _RIGHT) / len(values)
    every = _every(labels, step)
    parts = _grid(y_of, y, left)
    for i, (value, label) in enumerate(zip(values, labels, strict=True)):
        at = left + i * step
        top, height = min(y_of(value), y_of(0)), abs(y_of(value) - y_of(0))
        title = f"<title>{escape(label)}: {value:.4g}</title>"
        place = f'x="{at + step * 0.1:.1f}" y="{top:.1f}" width="{step * 0.8:.1f}" height="{height:.1f}"'
        parts.append(f'<rect class="bar" {place}>{title}</rect>')
        if i % every == 0:
            parts.append(_text(at + step / 2, HEIGHT - _BOTTOM + 16, label, "middle"))
    parts.append(_label((left + WIDTH - _RIGHT) / 2, HEIGHT - 6, x_label))
    return _svg(parts, f"{y_label} by {x_label}" if x_label else y_label)


def interval_chart(rows: Sequence[tuple[str, float, float, float]], x_label: str) -> str:
    """A dot with its interval for each row (name, value, low, high), under the row's name."""
    if not rows:
        return _empty()
    left, each = 20, 36
    height = each * len(rows) + 52
    x = _linear([0.0, *(row[2] for row in rows), *(row[3] for row in rows)], x_label)
    x_of = _scale(x.low, x.high, left, WIDTH - _RIGHT)
    parts = []
    for tick, _ in x.ticks:
        parts.append(f'<line class="grid" x1="{x_of(tick):.1f}" x2="{x_of(tick):.1f}" y1="4" y2="{height - 44}"/>')
    parts += _columns(x_of, x, left, height)
    most = int((WIDTH - left) / _DIGIT)
    for i, (name, value, below, above) in enumerate(rows):
        y = 30 + each * i
        title = f"<title>{escape(name)}: {value:.4g} [{below:.4g}, {above:.4g}]</title>"
        short = name if len(name) <= most else f"{name[: most - 1]}…"
        parts.append(_text(left, y - 12, short, "start"))
        parts.append(f'<line class="whisker" x1="{x_of(below):.1f}" x2="{x_of(above):.1f}" y1="{y}" y2="{y}"/>')
        parts.append(f'<circle class="dot" cx="{x_of(value):.1f}" cy="{y}" r="4.5">{title}</circle>')
    return _svg(parts, x_label, height)


def heat_map(rows: Sequence[Sequence[float]], x_label: str, y_label: str) -> str:
    """A cell for each value; each row is shaded from its smallest value to its largest."""
    if not rows or not rows[0]:
        return _empty()
    columns = max(len(row) for row in rows)
    cell = min(36.0, (WIDTH - _LEFT - _RIGHT) / columns)
    tall = min(max(cell, 8.0), 24.0)
    height = int(tall * len(rows) + _TOP + _BOTTOM)
    parts = []
    for i, row in enumerate(rows):
        least, span = min(row), (max(row) - min(row)) or 1.0
        for j, value in enumerate(row):
            shade = 0.08 + 0.92 * (value - least) / span
            place = (
                f'x="{_LEFT + j * cell:.1f}" y="{_TOP + i * tall:.1f}" width="{cell - 1:.1f}" height="{tall - 1:.1f}"'
            )
            title = f"<title>{escape(y_label)} {i}, {escape(x_label)} {j}: {value:.4g}</title>"
            parts.append(f'<rect class="cell" style="opacity:{shade:.2f}" {place}>{title}</rect>')
    for i in range(0, len(rows), math.ceil(14 / tall)):
        parts.append(_text(_LEFT - 8, _TOP + (i + 0.5) * tall + 4, str(i), "end"))
    for j in range(0, columns, _every([str(columns)], cell)):
        parts.append(_text(_LEFT + (j + 0.5) * cell - 0.5, height - _BOTTOM + 16, str(j), "middle"))
    parts.append(_turned(y_label, _TOP + tall * len(rows) / 2, tall * len(rows) + _TOP))
    parts.append(_label(_LEFT + cell * columns / 2, height - 6, x_label))
    return _svg(parts, f"{x_label} by {y_label}", height)


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Maps low to high on start to end; a single value is put in the middle."""
    span, first = high - low, start if low < high else (start + end) / 2
    return lambda value: first + (value - low) / (span or 1.0) * (end - start)


def _linear(values: Sequence[float], label: str) -> _Axis:
    low, high = min(values), max(values)
    ticks = _ticks(low, high)
    return _Axis(low, high, label, list(zip(ticks, _numbers(ticks), strict=True)))


def _logarithmic(exponents: Sequence[float], label: str) -> _Axis:
    low, high = min(exponents), max(exponents)
    ticks = _log_ticks(low, high)
    return _Axis(
        low, high, f"{label}, log scale", list(zip(ticks, _numbers([10**tick for tick in ticks]), strict=True))
    )


def _room(y: _Axis) -> float:
    """The room left of a chart: its y label, and its longest tick."""
    return max(_LEFT, 30 + _DIGIT * max((len(text) for _, text in y.ticks), default=0))


def _grid(y_of: Callable[[float], float], y: _Axis, left: float) -> list[str]:
    """The y axis: a line and a text for each tick, and the label."""
    parts = []
    for tick, text in y.ticks:
        at = y_of(tick)
        parts.append(f'<line class="grid" x1="{left:.0f}" x2="{WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(_text(left - 8, at + 4, text, "end"))
    return [*parts, _turned(y.label, (_TOP + HEIGHT - _BOTTOM) / 2, HEIGHT - _TOP)]


def _columns(x_of: Callable[[float], float], x: _Axis, left: float, height: int = HEIGHT) -> list[str]:
    """The x axis: the texts of its ticks, as many as have room, and the label."""
    texts = [text for _, text in x.ticks]
    every = _every(texts, (WIDTH - left - _RIGHT) / max(len(texts), 1))
    parts = [_text(x_of(tick), height - _BOTTOM + 16, text, "middle") for tick, text in x.ticks[::every]]
    return [*parts, _label((left + WIDTH - _RIGHT) / 2, height - 6, x.label)]


def _every(texts: Sequence[str], step: float) -> int:
    """Which share of texts, one every `step` pixels, can be shown without overlap: 1 all, 2 every second, ..."""
    return math.ceil((_DIGIT * max((len(text) for text in texts), default=0) + 6) / step)


def _ticks(low: float, high: float, about: int = 5) -> list[float]:
    """About `about` round numbers between `low` and `high`; the number itself where both are equal."""
    if low == high:
        return [low]
    raw = max((high - low) / about, 1 / LARGEST)
    power = 10.0 ** math.floor(math.log10(raw))
    step = min((m * power for m in (1, 2, 2.5, 5, 10)), key=lambda s: abs(s - raw))
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Exponents of ticks between 10**low and 10**high, `_LINES` at most.

    1, 2 and 5 times the powers of ten; where those are too many, powers of ten; where those are too few, round numbers.
    """
    if low == high:
        return [low]
    powers = range(math.floor(low), math.ceil(high) + 1)
    fine = [p + math.log10(m) for p in powers for m in (1, 2, 5) if low - 1e-9 <= p + math.log10(m) <= high + 1e-9]
    if len(fine) < 2:
        return [math.log10(tick) for tick in _ticks(10**low, 10**high) if tick > 0]
    if len(fine) <= _LINES:
        return fine
    whole = [float(p) for p in powers if low <= p <= high]
    return whole[:: math.ceil(len(whole) / _LINES)]


def _numbers(ticks: Sequence[float]) -> list[str]:
    """Ticks as texts that differ: short if that is enough, with more digits if not."""
    texts = [f"{tick:.3g}" if abs(tick) < 1000 else human(tick) for tick in ticks]
    for digits in range(4, 16):
        if len(set(texts)) == len(ticks):
            break
        texts = [f"{tick:.{digits}g}" for tick in ticks]
    return texts


def _stroke(number: int) -> str:
    dash = DASHES[number // SERIES % len(DASHES)]
    return f"stroke:var(--series-{number % SERIES})" + (f";stroke-dasharray:{dash}" if dash else "")


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _label(x: float, y: float, text: str) -> str:
    place = f'text-anchor="middle" x="{x:.1f}" y="{y:.1f}"'
    return f'<text class="label" {place}{_squeezed(text, WIDTH)}>{escape(text)}</text>'


def _turned(text: str, middle: float, room: float) -> str:
    """The label of a y axis, turned, no longer than `room`."""
    place = f'text-anchor="middle" transform="translate(14 {middle:.0f}) rotate(-90)"'
    return f'<text class="label" {place}{_squeezed(text, room)}>{escape(text)}</text>'


def _squeezed(text: str, room: float) -> str:
    """What makes a label narrower that is too long for its room."""
    return "" if _LETTER * len(text) <= room else f' textLength="{room:.0f}" lengthAdjust="spacingAndGlyphs"'


def _legend(names: Sequence[str]) -> str:
    return f'<div class="legend">{"".join(_key(i, name) for i, name in enumerate(names))}</div>'


def _key(number: int, name: str) -> str:
    line = f'<line class="line" style="{_stroke(number)}" x1="0" x2="22" y1="4" y2="4"/>'
    return f'<span><svg width="22" height="8" aria-hidden="true">{line}</svg>{escape(name)}</span>'


def _svg(parts: Sequence[str], label: str, height: int = HEIGHT) -> str:
    head = f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">'
    return head + "".join(parts) + "</svg>"


def _empty() -> str:
    return '<p class="quiet">nothing to draw</p>'

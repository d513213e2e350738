"""Charts as inline SVG: pure functions from numbers to markup, in the page's own colours, light and dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from prunus.console import human

WIDTH, HEIGHT = 560, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 12, 40
LARGEST = 1e300
"""Beyond it the differences between ticks are no longer numbers."""
SERIES = 8
"""Colours that the page defines, `--series-0` to `--series-7`; lines beyond repeat them, dashed."""


@dataclass(frozen=True)
class Series:
    """A named line: its points in order of x."""

    name: str
    points: Sequence[tuple[float, float]]


def line_chart(series: Sequence[Series], x_label: str, y_label: str, log_y: bool = False, falling: bool = False) -> str:
    """Lines over a common x, small y below, or, `falling`, above. Points that an axis cannot show are left out."""
    shown = [Series(s.name, [p for p in s.points if abs(p[1]) < LARGEST and (p[1] > 0 or not log_y)]) for s in series]
    shown = [s for s in shown if s.points]
    if not shown:
        return _empty()
    xs = [x for s in shown for x, _ in s.points]
    ys = [math.log10(y) if log_y else y for s in shown for _, y in s.points]
    x_of = _scale(min(xs), max(xs), _LEFT, WIDTH - _RIGHT)
    y_of = _scale(min(ys), max(ys), *((_TOP, HEIGHT - _BOTTOM) if falling else (HEIGHT - _BOTTOM, _TOP)))
    y_label = f"{y_label}, log scale" if log_y else y_label
    parts = _axes(x_of, y_of, (min(xs), max(xs)), (min(ys), max(ys)), x_label, y_label, log_y)
    for number, s in enumerate(shown):
        places = [(x_of(x), y_of(math.log10(y) if log_y else y)) for x, y in s.points]
        title = f"<title>{escape(s.name)}</title>"
        if len(places) == 1:  # a line through one point is not seen
            dot = f'cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="3"'
            parts.append(f'<circle class="point" style="{_stroke(number)}" {dot}>{title}</circle>')
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline class="line" style="{_stroke(number)}" points="{points}">{title}</polyline>')
    return _svg(parts, f"{y_label} by {x_label}") + _legend([s.name for s in shown])


def scatter_chart(points: Sequence[tuple[str, float, float]], front: Sequence[str], x_label: str, y_label: str) -> str:
    """A dot a point (name, x, y), and a line through those of `front`."""
    if not points:
        return _empty()
    xs, ys = [x for _, x, _ in points], [y for _, _, y in points]
    x_of, y_of = _scale(min(xs), max(xs), _LEFT, WIDTH - _RIGHT), _scale(min(ys), max(ys), HEIGHT - _BOTTOM, _TOP)
    parts = _axes(x_of, y_of, (min(xs), max(xs)), (min(ys), max(ys)), x_label, y_label, False)
    best = sorted((x, y) for name, x, y in points if name in front)
    line = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in best)
    parts.append(f'<polyline class="line" style="{_stroke(0)}" points="{line}"/>')
    for name, x, y in points:
        title = f"<title>{escape(name)}: {x:.4g}, {y:.4g}</title>"
        parts.append(f'<circle class="dot" cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="4.5">{title}</circle>')
    return _svg(parts, f"{y_label} by {x_label}")


def bar_chart(values: Sequence[float], labels: Sequence[str], y_label: str, x_label: str = "") -> str:
    """One bar a value, in the order given."""
    if not values:
        return _empty()
    top = max(*values, 0.0) or 1.0
    bottom = min(*values, 0.0)
    y_of = _scale(bottom, top, HEIGHT - _BOTTOM, _TOP)
    step = (WIDTH - _LEFT - _RIGHT) / len(values)
    parts = _grid(y_of, bottom, top, y_label)
    for i, (value, label) in enumerate(zip(values, labels, strict=True)):
        x = _LEFT + i * step
        y, height = min(y_of(value), y_of(0)), abs(y_of(value) - y_of(0))
        title = f"<title>{escape(label)}: {value:.4g}</title>"
        place = f'x="{x + step * 0.1:.1f}" y="{y:.1f}" width="{step * 0.8:.1f}" height="{height:.1f}"'
        parts.append(f'<rect class="bar" {place}>{title}</rect>')
        if len(values) <= 40:
            parts.append(_text(x + step / 2, HEIGHT - _BOTTOM + 16, label, "middle"))
    parts.append(_text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 6, x_label, "middle", "label"))
    return _svg(parts, f"{y_label} by {x_label}" if x_label else y_label)


def interval_chart(rows: Sequence[tuple[str, float, float, float]], x_label: str) -> str:
    """A dot with its interval a row: (name, value, low, high)."""
    if not rows:
        return _empty()
    left, height = 24 + 6.3 * max(len(row[0]) for row in rows), 26 * len(rows) + 44
    low, high = min(0.0, *(row[2] for row in rows)), max(row[3] for row in rows)
    x_of = _scale(low, high, left, WIDTH - _RIGHT)
    parts = []
    ticks = _ticks(low, high)
    for tick, label in zip(ticks, _numbers(ticks), strict=True):
        parts.append(f'<line class="grid" x1="{x_of(tick):.1f}" x2="{x_of(tick):.1f}" y1="4" y2="{height - 36}"/>')
        parts.append(_text(x_of(tick), height - 20, label, "middle"))
    for i, (name, value, below, above) in enumerate(rows):
        y = 18 + 26 * i
        parts.append(_text(left - 12, y + 4, name, "end"))
        parts.append(f'<line class="whisker" x1="{x_of(below):.1f}" x2="{x_of(above):.1f}" y1="{y}" y2="{y}"/>')
        title = f"<title>{escape(name)}: {value:.4g} [{below:.4g}, {above:.4g}]</title>"
        parts.append(f'<circle class="dot" cx="{x_of(value):.1f}" cy="{y}" r="4.5">{title}</circle>')
    parts.append(_text((left + WIDTH) / 2, height - 4, x_label, "middle", "label"))
    return _svg(parts, x_label, height)


def heat_map(rows: Sequence[Sequence[float]], x_label: str, y_label: str) -> str:
    """A cell a value, each row shaded by itself from its least to its largest."""
    if not rows or not rows[0]:
        return _empty()
    cell = min(36.0, (WIDTH - _LEFT - _RIGHT) / max(len(row) for row in rows))
    tall = min(cell, 24.0)
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
        if len(rows) <= 40:
            parts.append(_text(_LEFT - 8, _TOP + i * tall + tall * 0.7, str(i), "end"))
    parts.append(_text(_LEFT, height - 14, f"{x_label} →   {y_label} ↓", "start", "label"))
    return _svg(parts, f"{x_label} by {y_label}", height)


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _axes(
    x_of: Callable[[float], float],
    y_of: Callable[[float], float],
    xs: tuple[float, float],
    ys: tuple[float, float],
    x_label: str,
    y_label: str,
    log_y: bool,
) -> list[str]:
    parts = _grid(y_of, *ys, y_label, log_y)
    ticks = _ticks(*xs)
    for tick, text in zip(ticks, _numbers(ticks), strict=True):
        parts.append(_text(x_of(tick), HEIGHT - _BOTTOM + 16, text, "middle"))
    parts.append(_text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 6, x_label, "middle", "label"))
    return parts


def _grid(y_of: Callable[[float], float], low: float, high: float, label: str, log: bool = False) -> list[str]:
    parts = []
    ticks = _log_ticks(low, high) if log else _ticks(low, high)
    for tick, text in zip(ticks, _numbers([10**tick for tick in ticks] if log else ticks), strict=True):
        y = y_of(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(_LEFT - 8, y + 4, text, "end"))
    turned = f'transform="translate(14 {(_TOP + HEIGHT - _BOTTOM) / 2:.0f}) rotate(-90)"'
    parts.append(f'<text class="label" text-anchor="middle" {turned}>{escape(label)}</text>')
    return parts


def _ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between `low` and `high`, some `about` of them; where both are one number, that."""
    if low == high:
        return [low]
    raw = max((high - low) / about, 1 / LARGEST)
    power = 10.0 ** math.floor(math.log10(raw))
    step = min((m * power for m in (1, 2, 2.5, 5, 10)), key=lambda s: abs(s - raw))
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Exponents of 1, 2 and 5 times the powers of ten between 10**low and 10**high; plain ones where that is few."""
    if low == high:
        return [low]
    found = [p + math.log10(m) for p in range(math.floor(low), math.ceil(high) + 1) for m in (1, 2, 5)]
    found = [tick for tick in found if low <= tick <= high]
    if len(found) >= 2:
        return found
    return [math.log10(tick) for tick in _ticks(10**low, 10**high) if tick > 0]


def _numbers(ticks: Sequence[float]) -> list[str]:
    """Ticks in words that tell them apart: short if that does, with more digits if not."""
    found = [f"{tick:.3g}" if abs(tick) < 1000 else human(tick) for tick in ticks]
    for digits in range(4, 16):
        if len(set(found)) == len(ticks):
            break
        found = [f"{tick:.{digits}g}" for tick in ticks]
    return found


def _stroke(number: int) -> str:
    dash = ";stroke-dasharray:6 4" if number >= SERIES else ""
    return f"stroke:var(--series-{number % SERIES}){dash}"


def _text(x: float, y: float, text: str, anchor: str, kind: str = "tick") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


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

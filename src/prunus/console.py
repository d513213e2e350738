"""Terminal output: headings, one live line per step, warnings and tables.

On a terminal a step's progress is one line that is updated in place; elsewhere (a log, CI) a plain line every few
seconds.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console as Rich
from rich.live import Live
from rich.markup import escape
from rich.text import Text

_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
"""Characters that untrusted text must not bring to a terminal or a page: control characters, changes of direction, and
those that UTF-8 cannot encode. Tabs and line feeds are allowed."""
_PLAIN_SECONDS = 10.0  # between two lines of a log
_RATE_SECONDS = 30.0  # the window that a rate is averaged over


class Progress:
    """The state of one live line."""

    def __init__(self, label: str, total: float | None, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = 0.0
        self.figures: dict[str, float] = {}
        self.seen: deque[tuple[float, float]] = deque()  # (time, work done) over the last seconds

    def update(self, done: float, **figures: float) -> None:
        """Report how much work is done, and further figures to show."""
        now = time.monotonic()
        self.seen.append((now, done))
        while now - self.seen[0][0] > _RATE_SECONDS and len(self.seen) > 2:
            self.seen.popleft()
        self.done = done
        self.figures |= figures

    def line(self) -> str:
        """The line as text: work done of the total, rate, figures, and time left."""
        rate = self._rate()
        parts = [f"{self.label}  {human(self.done)}"]
        if self.total:
            parts[0] += f" / {human(self.total)}"
        parts[0] += f" {self.unit}"
        if rate:
            parts.append(f"{human(rate)} {self.unit}/s" if rate >= 1 else f"{human(60 * rate)} {self.unit}/min")
        parts += [f"{name} {value:.4g}" for name, value in self.figures.items()]
        if self.total and rate:
            parts.append(f"{duration(max(self.total - self.done, 0) / rate)} left")
        return "  ·  ".join(parts)

    def _rate(self) -> float:
        if len(self.seen) < 2:
            return 0.0
        (start, before), (end, after) = self.seen[0], self.seen[-1]
        return (after - before) / (end - start) if end > start else 0.0


class Console:
    """Where steps and the pipeline print. With `quiet`, nothing is printed."""

    def __init__(self, quiet: bool = False, file: Any = None) -> None:
        self.rich = Rich(quiet=quiet, file=file, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """Print a line without markup."""
        self.rich.print(Text(printable(text)))

    def heading(self, text: str, note: str = "") -> None:
        """Print the heading of a part of the run."""
        self.rich.print(f"[bold]{escape(printable(text))}[/bold]  [dim]{escape(printable(note))}[/dim]")

    def warn(self, text: str) -> None:
        """Print a warning."""
        self.rich.print(f"[yellow]warning:[/yellow] {escape(printable(text))}")

    def marked(self, pieces: Iterable[tuple[str, bool]]) -> None:
        """Print a text in pieces, some of which are marked: underlined on a terminal, in [[ ]] elsewhere."""
        if self.rich.is_terminal:
            self.rich.print(
                Text.assemble(*((piece, "bold underline" if is_marked else "") for piece, is_marked in pieces))
            )
        else:
            self.say("".join(f"[[{piece}]]" if is_marked else piece for piece, is_marked in pieces))

    @contextmanager
    def progress(self, label: str, total: float | None, unit: str) -> Iterator[Progress]:
        """Show the progress of a piece of work while the context is open."""
        state = Progress(label, total, unit)
        if self.rich.is_terminal:
            line = _Line(state)
            with Live(line, console=self.rich, refresh_per_second=4):
                yield state
        else:
            plain = _Plain(state, self)
            yield plain if not self.rich.quiet else state
            if plain.shown != state.done:
                self.say(state.line())

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table: first column left-aligned, others right-aligned. A narrow terminal wraps lines, cuts none."""
        lines = [[printable(cell) for cell in row] for row in [columns, *rows]]
        widths = [max(len(row[i]) for row in lines) for i in range(len(columns))]
        self.rich.print(Text(printable(title), style="bold"))
        for number, row in enumerate(lines):
            cells = [cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
            self.rich.print(Text("  ".join(cells).rstrip(), style="" if number else "dim"))


class _Line:
    """The live line for rich, which draws its current state."""

    def __init__(self, state: Progress) -> None:
        self.state = state

    def __rich__(self) -> Text:
        """One line, cut at the terminal's edge."""
        return Text(self.state.line(), no_wrap=True, overflow="ellipsis")


class _Plain(Progress):
    """A live line where there is no terminal: prints a line every few seconds."""

    def __init__(self, state: Progress, console: Console) -> None:
        self.state, self.console = state, console
        self.printed = time.monotonic()
        self.shown: float | None = None  # how far the work was in the last line

    def update(self, done: float, **figures: float) -> None:
        self.state.update(done, **figures)
        if time.monotonic() - self.printed >= _PLAIN_SECONDS:
            self.printed = time.monotonic()
            self.shown = done
            self.console.say(self.state.line())


def printable(text: str) -> str:
    """A text with U+FFFD for every character that would control the terminal or cannot be encoded as UTF-8."""
    return _UNSAFE.sub("\ufffd", text)


def human(number: float) -> str:
    """A number in three or four digits: 950, 12.3k, 4.54B."""
    for limit, divisor, suffix in ((1e3, 1, ""), (1e6, 1e3, "k"), (1e9, 1e6, "M"), (1e12, 1e9, "B"), (1e15, 1e12, "T")):
        if abs(number) < limit * 0.9995:
            value = number / divisor
            return f"{value:.0f}{suffix}" if value >= 100 or not suffix else f"{value:.3g}{suffix}"
    return f"{number:.2e}"


def human_bytes(number: float) -> str:
    """A number of bytes in decimal units, as disks and hubs count: 16.1 GB."""
    digits = human(number).replace("B", "G")
    return f"{digits} B" if digits[-1].isdigit() else f"{digits[:-1]} {digits[-1]}B"


def duration(seconds: float) -> str:
    """A time in the two units that matter: 42s, 3m 10s, 2h 05m, 3d 4h."""
    minutes, hours = divmod(int(seconds), 60)[0], int(seconds) // 3600
    if seconds < 60:
        return f"{seconds:.0f}s"
    if hours < 1:
        return f"{minutes}m {int(seconds) % 60:02d}s"
    if hours < 48:
        return f"{hours}h {minutes % 60:02d}m"
    return f"{hours // 24}d {hours % 24}h"

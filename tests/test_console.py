"""What others wrote, on the terminal: it is shown, and steers nothing."""

import io

import pytest

from prunus.console import Console, printable

BAD = "a\x1b[2J\x07\x00\x9b31m\u202eb\u2066\ud800\rc"


@pytest.mark.parametrize("how", ["say", "warn", "heading", "table"])
def test_nothing_steers_the_terminal(how: str) -> None:
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding="utf-8", write_through=True))
    if how == "table":
        console.table(BAD, [BAD, "x"], [[BAD, "1"]])
    else:
        getattr(console, how)(BAD)
    shown = raw.getvalue().decode("utf-8")
    assert "a\ufffd[2J" in shown
    for character in "\x1b\x07\x00\x9b\u202e\u2066\r":
        assert character not in shown


def test_printable_text_is_unchanged() -> None:
    text = "Ünïcode, עברית, 한국어, a\ttab\nand a line"
    assert printable(text) == text


def test_progress_without_a_terminal_repeats_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last line stands once, whether an update or the end printed it."""
    for seconds in (0.0, 60.0):
        monkeypatch.setattr("prunus.console._PLAIN_SECONDS", seconds)
        out = io.StringIO()
        with Console(file=out).progress("score", 8, "tokens") as progress:
            progress.update(4)
            progress.update(8)
        assert out.getvalue().count("8 / 8 tokens") == 1

"""Numbers on the command line: what flags take, and how figures are shown."""

import pytest

from prunus.cli.base import _figure
from prunus.cli.main import main
from prunus.cli.parse import whole_number


@pytest.mark.parametrize(("text", "number"), [("12", 12), ("-3", -3), ("1_000", 1000), ("1e6", 10**6), ("2.0", 2)])
def test_whole_numbers(text: str, number: int) -> None:
    """As recipes take them."""
    assert whole_number(text) == number


@pytest.mark.parametrize("text", ["few", "", "1.5", "1e-3", "inf", "nan", "10k"])
def test_what_is_no_whole_number(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="^2$"):
        main(["score", "model", "--corpus", "text.jsonl", "--out", "scores", "--samples", text])
    assert "expected a whole number" in capsys.readouterr().err


def test_counts_are_shown_in_full() -> None:
    """Also those that a record holds as floats."""
    assert [_figure(value) for value in (134515008.0, 4, 0.0196688123, float("nan"))] == [
        "134,515,008", "4", "0.0196688", "nan",
    ]  # fmt: skip

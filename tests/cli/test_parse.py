"""Numbers on the command line: what flags take, and how figures are shown."""

import pytest

from prunus.cli.base import _figure
from prunus.cli.main import main
from prunus.cli.options import whole_number


@pytest.mark.parametrize(("text", "number"), [("12", 12), ("-3", -3), ("1_000", 1000), ("1e6", 10**6), ("2.0", 2)])
def test_whole_numbers(text: str, number: int) -> None:
    """As recipes take them."""
    assert whole_number(text) == number


@pytest.mark.parametrize("text", ["few", "", "1.5", "1e-3", "inf", "nan", "10k"])
def test_what_is_no_whole_number(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "model", "--corpus", "text.jsonl", "--out", "scores", "--samples", text]) == 2
    assert capsys.readouterr().err == (
        f"error: --samples: expected a whole number, such as 1_000_000 (found {text!r})\n"
    )


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (["--hiden-size", "16"], ["--hiden-size"]),
        (["--hiden_size=16"], ["--hiden-size"]),
        (["--hidden-size", "16", "--hael.refit", "none", "--zzz"], ["--hael.refit", "--zzz"]),
    ],
)
def test_an_unknown_flag_is_named_with_the_nearest_ones(
    flags: list[str], names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Also if `--out`, which is required, is missing."""
    assert main(["prune", "model", *flags]) == 2
    text = capsys.readouterr().err
    lines = [line for line in text.splitlines() if "unknown option" in line]
    assert [line.strip().removeprefix("error: ").partition(":")[0] for line in lines] == names
    assert "did you mean `--hidden-size`?" in text or "did you mean `--heal.refit`?" in text
    assert all(line.endswith(" more (all: `prunus prune --help`)") for line in lines)
    assert len(text.splitlines()) <= 4


def test_counts_are_shown_in_full() -> None:
    """Also those that a record holds as floats."""
    assert [_figure(value) for value in (134515008.0, 4, 0.0196688123, float("nan"))] == [
        "134,515,008", "4", "0.0196688", "nan",
    ]  # fmt: skip

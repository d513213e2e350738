"""Several sources as one, compared with a mixture that is written out document by document."""

import json
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.data import mixture
from prunus.data.config import Source, TokensConfig
from prunus.data.mixture import Mixture, check_not_empty
from prunus.errors import DataError


def everything(text: str) -> bool:
    return True


def source_of(folder: Path, name: str, texts: list[str], weight: float | None = None) -> Source:
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return Source(path=str(file), weight=weight)


def batches(mixed: Mixture, size: int, most: int = 1000) -> list[list[str]]:
    """All batches, or the first `most`; a document counts as many tokens as it has characters."""
    read = []
    while len(read) < most and (texts := mixed.batch(size)):
        mixed.count(sum(map(len, texts)))
        read.append(texts)
    return read


def expected(texts: list[list[str]], weights: list[float], size: int) -> list[list[str]]:
    """The batches of a weighted mixture: each from the source with the least tokens for its weight."""
    left, drawn, read = [list(one) for one in texts], [0] * len(texts), []
    while True:
        shares = [count / weight for count, weight in zip(drawn, weights, strict=True)]
        at = shares.index(min(shares))
        batch, left[at] = left[at][:size], left[at][size:]
        if not batch:
            return read
        read.append(batch)
        drawn[at] += sum(map(len, batch))


def documents(name: str, lengths: list[int]) -> list[str]:
    return [name * length for length in lengths]


def test_without_weights_sources_are_read_one_after_the_other(tmp_path: Path) -> None:
    texts = [["a", "aa", "aaa"], ["b"], ["c", "cc"]]
    sources = [source_of(tmp_path, str(i), one) for i, one in enumerate(texts)]
    assert batches(Mixture(sources, everything), 2) == [["a", "aa"], ["aaa"], ["b"], ["c", "cc"]]


LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=12)


def test_with_weights_the_source_that_is_behind_is_next(tmp_path: Path) -> None:
    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.tuples(LENGTHS, st.sampled_from([0.5, 1.0, 3.0])), min_size=1, max_size=3), st.integers(1, 4))
    def hold(drawn: list[tuple[list[int], float]], size: int) -> None:
        texts = [documents(name, lengths) for name, (lengths, _) in zip("abc", drawn, strict=False)]
        weights = [weight for _, weight in drawn]
        sources = [source_of(tmp_path, str(i), one, weights[i]) for i, one in enumerate(texts)]
        assert batches(Mixture(sources, everything), size) == expected(texts, weights, size)

    hold()


@pytest.mark.parametrize("weights", [(None, None), (2.0, 1.0)])
def test_a_mixture_resumes_after_any_batch(tmp_path: Path, weights: tuple[float | None, float | None]) -> None:
    texts = [documents("a", [3, 1, 4, 1, 5]), documents("b", [2, 7, 1, 8])]
    sources = [source_of(tmp_path, str(i), one, weights[i]) for i, one in enumerate(texts)]
    whole = batches(Mixture(sources, everything), 2)
    for done in range(len(whole) + 1):
        first = Mixture(sources, everything)
        read = batches(first, 2, most=done)
        state = json.loads(json.dumps(first.state))
        assert read + batches(Mixture(sources, everything, state), 2) == whole


def test_a_batch_of_long_documents_has_fewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixture, "_CHARACTERS", 10)
    texts = documents("a", [4, 4, 4, 1, 12, 1])
    read = batches(Mixture([source_of(tmp_path, "a", texts)], everything), 5)
    assert [[len(text) for text in batch] for batch in read] == [[4, 4, 4], [1, 12], [1]]


def test_documents_that_are_not_kept_are_skipped(tmp_path: Path) -> None:
    sources = [source_of(tmp_path, "a", ["a", "x", "aa"]), source_of(tmp_path, "b", ["x"])]
    assert batches(Mixture(sources, partial(str.__ne__, "x")), 1) == [["a"], ["aa"]]


def test_sources_without_a_document_are_refused(tmp_path: Path) -> None:
    blank, full = source_of(tmp_path, "blank", ["", " \n"]), source_of(tmp_path, "full", ["plum"])
    with pytest.raises(DataError, match=r"data.corpus: no document is left in .*blank.jsonl$"):
        check_not_empty([blank], TokensConfig(), "data.corpus")
    check_not_empty([blank, full], TokensConfig(), "data.corpus")
    with pytest.raises(DataError, match="on the side 'held_out' of the split by hash, with held_out_fraction: 1e-09"):
        check_not_empty([full], TokensConfig(part="held_out", held_out_fraction=1e-9), "data.corpus")

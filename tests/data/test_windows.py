"""Windows of held-out text beside lm-evaluation-harness's, and its own rule written out where that is not there."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunus.data.tokens import Tokens
from prunus.data.windows import first_windows, windows
from prunus.errors import DataError

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=6)


def made(lengths: list[int], prefix: tuple[int, ...] = (), opening: tuple[int, ...] = ()) -> Tokens:
    numbers = np.arange(10, 10 + sum(lengths))
    documents = np.split(numbers, np.cumsum(lengths)[:-1])
    ids = np.concatenate([[*prefix, *document] for document in documents]).astype(np.uint16)
    ends = np.cumsum([len(prefix) + length for length in lengths])
    return Tokens(ids, ends, 3 * np.array(lengths), None, prefix, opening or prefix)


def rolling(tokens: list[int], prefix: int, most: int) -> Iterator[tuple[list[int], list[int]]]:
    """What the harness feeds and scores: inputs of at most `most` tokens, and the tokens they predict."""
    yield [prefix, *tokens[: most - 1]][: len(tokens)], tokens[:most]
    for start in range(most, len(tokens), most):
        yield tokens[start - 1 : start + most - 1][: len(tokens) - start], tokens[start : start + most]


def harness(tokens: list[int], prefix: int, most: int) -> Iterator[tuple[list[int], list[int]]]:
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    for context, predicted in map(make_disjoint_window, get_rolling_token_windows(tokens, prefix, most, 1)):
        yield [*context, *predicted][:-1], predicted


@pytest.mark.parametrize("reference", [rolling, harness])
@given(lengths=LENGTHS, most=st.integers(1, 15))
def test_windows_are_the_harnesss_where_nothing_is_put_before_a_text(reference, lengths: list[int], most: int) -> None:
    if reference is harness:
        pytest.importorskip("lm_eval")
    tokens = made(lengths, opening=(5,))
    found = [(w.ids[:-1].tolist(), w.ids[w.context :].tolist()) for w in windows(tokens, most + 1)]
    documents = np.split(tokens.ids, tokens.ends[:-1])
    assert found == [pair for document in documents for pair in reference(document.tolist(), 5, most)]


@given(lengths=LENGTHS, length=st.integers(5, 15), prefix=st.sampled_from([(), (7,), (7, 8)]), eos=st.booleans())
def test_every_token_is_predicted_once_behind_the_prefix(
    lengths: list[int], length: int, prefix: tuple[int, ...], eos: bool
) -> None:
    tokens = made(lengths, prefix, () if prefix else (5,) * eos)
    predicted, size = [], 0.0
    for window in windows(tokens, length):
        assert len(window.ids) <= length
        assert window.ids[: len(prefix)].tolist() == list(prefix)
        assert window.predicted >= 1
        predicted += window.ids[window.context :].tolist()
        size += window.size
    numbers = np.arange(10, 10 + sum(lengths)).tolist()
    if prefix or eos:
        assert predicted == numbers
        assert size == pytest.approx(3 * sum(lengths))
    else:  # nothing stands before a document's first token
        assert predicted == [n for n in numbers if n - 10 not in {0, *np.cumsum(lengths).tolist()}]


def test_a_length_without_room_is_refused() -> None:
    with pytest.raises(DataError, match="sequence_length: 2 has no room"):
        next(windows(made([9], (7,)), 2))


def test_windows_end_where_enough_tokens_are_in_them() -> None:
    tokens = made([40, 40], (7,))
    chosen = first_windows(tokens, 10, 25)
    assert [len(window.ids) for window in chosen] == [10, 10, 10]
    assert sum(window.predicted for window in first_windows(tokens, 10, 10**6)) == 80

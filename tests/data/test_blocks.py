"""Blocks beside a slow reference: a list that is built token by token."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunus.data.blocks import Blocks, calibration_set
from prunus.data.tokens import Tokens
from prunus.errors import DataError

LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=12)


def made(lengths: list[int], prefix: tuple[int, ...], begins: bool = True, answers: bool = False) -> Tokens:
    """Documents of rising numbers from 10, each with the prefix at its start or not."""
    documents, number = [], 10
    for length in lengths:
        documents.append([*(prefix if begins else ()), *range(number, number + length)])
        number += length
    ids = np.array([token for document in documents for token in document], dtype=np.uint16)
    ends = np.cumsum([len(document) for document in documents])
    asked = np.stack([ends - 1, ends], axis=1) if answers else None  # the last token of each answers somebody
    return Tokens(ids, ends, np.array(lengths), asked, prefix)


@given(lengths=LENGTHS, length=st.integers(1, 9))
def test_without_a_prefix_blocks_are_the_stream(lengths: list[int], length: int) -> None:
    tokens = made(lengths, ())
    if len(tokens.ids) < length:
        with pytest.raises(DataError, match="do not fill one sequence of"):
            Blocks(tokens, length)
        return
    blocks = Blocks(tokens, length)
    assert len(blocks) == len(tokens.ids) // length
    assert blocks.batch(np.arange(len(blocks))).ravel().tolist() == tokens.ids[: len(blocks) * length].tolist()
    for number in range(len(blocks)):
        assert blocks.positions(number).tolist() == tokens.positions(number * length, length)[0].tolist()


@given(lengths=LENGTHS, length=st.integers(3, 9), width=st.integers(1, 2), begins=st.booleans())
def test_every_block_begins_with_the_prefix_and_misses_no_token(
    lengths: list[int], length: int, width: int, begins: bool
) -> None:
    prefix = (7, 8)[:width]
    tokens = made(lengths, prefix, begins)
    if len(tokens.ids) < length:
        return
    blocks, stream, step = Blocks(tokens, length), tokens.ids.tolist(), length - width
    assert len(blocks) == (len(stream) - length) // step + 1
    for number in range(len(blocks)):
        rest = stream[number * step :]
        expected = rest if tuple(rest[:width]) == prefix else [*prefix, *rest]
        assert blocks.ids(number).tolist() == expected[:length]
    seen = {token for number in range(len(blocks)) for token in blocks.ids(number).tolist()}
    assert seen >= set(stream[: len(blocks) * step])


@given(lengths=LENGTHS, length=st.integers(3, 9), begins=st.booleans())
def test_positions_begin_anew_with_each_document(lengths: list[int], length: int, begins: bool) -> None:
    tokens = made(lengths, (7,), begins, answers=True)
    if len(tokens.ids) < length:
        return
    blocks = Blocks(tokens, length)
    lasts = set(tokens.ids[tokens.ends - 1].tolist())
    for number in range(len(blocks)):
        ids = blocks.ids(number).tolist()
        expected, at = [], 0
        for place in range(len(ids)):
            at = 0 if place and ids[place - 1] in lasts else at + bool(place)
            expected.append(at)
        assert blocks.positions(number).tolist() == expected
        assert blocks.loss_mask(number).tolist() == [token in lasts for token in ids]


def test_all_of_a_text_without_a_prompt_counts() -> None:
    assert Blocks(made([9, 9], (7,)), 5).loss_mask(1).all()


def test_a_prefix_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(DataError, match="sequence_length: 2 has no room"):
        Blocks(made([9], (7, 8)), 2)


def test_a_calibration_set_is_some_blocks_each_once() -> None:
    tokens = made([30, 30], (7,))
    every = {tuple(ids) for ids in Blocks(tokens, 8).batch(np.arange(len(Blocks(tokens, 8)))).tolist()}
    few, all_of_them = calibration_set(tokens, 3, 8, seed=1), calibration_set(tokens, 99, 8, seed=1)
    assert few.tolist() == all_of_them[:3].tolist()
    assert {tuple(ids) for ids in all_of_them.tolist()} == every
    assert len(all_of_them) == len(every)
    assert (all_of_them[:, 0] == 7).all()

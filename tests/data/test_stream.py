"""A stream as it is written: what of it counts."""

from pathlib import Path

import numpy as np

from prunus.data.stream import Stream
from prunus.data.tokens import IDS, Tokens

DOCUMENTS = [(5, [(1, 3)]), (4, []), (6, [(0, 2), (3, 4), (5, 6)]), (3, [(0, 3)]), (7, None), (2, [(1, 2)])]


def written(out: Path, documents: list) -> Tokens:
    with (out / IDS).open("wb") as file:
        stream = Stream(file, 300)
        for length, answers in documents:
            stream.write("x", range(length), answers)
    stream.finish(out)
    return Tokens.open(out)


def test_answers_come_back_token_by_token_from_wherever_one_looks(tmp_path: Path) -> None:
    tokens = written(tmp_path, DOCUMENTS)
    wanted = np.zeros(27, dtype=bool)
    start = 0
    for length, answers in DOCUMENTS:
        for a, b in [(0, length)] if answers is None else answers:
            wanted[start + a : start + b] = True
        start += length
    for first in range(27):
        for length in range(1, 28 - first):
            assert tokens.loss_mask(first, length).tolist() == wanted[first : first + length].tolist()


def test_where_all_counts_nothing_is_written_and_where_nothing_counts_nothing_does(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert written(tmp_path / "a", [(5, None), (3, [(0, 3)])]).answers is None
    assert not written(tmp_path / "b", [(5, []), (3, [])]).loss_mask(0, 8).any()

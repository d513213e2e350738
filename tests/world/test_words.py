from random import Random

import pytest

from prunus.world.config import Part
from prunus.world.words import FIRST, SECOND, SYLLABLES, Words, part_of


def test_syllables_are_64_that_differ() -> None:
    for syllables in (FIRST, SECOND):
        assert len(syllables) == len(set(syllables)) == SYLLABLES
    assert len({first + second for first in FIRST for second in SECOND}) == SYLLABLES**2  # no word is made two ways


@pytest.mark.parametrize(("rows", "columns"), [(64, 64), (9, 10), (24, 11)])
def test_every_syllable_and_digit_is_in_both_parts(rows: int, columns: int) -> None:
    for first in range(rows):
        assert {part_of(first, second) for second in range(columns)} == {"train", "held_out"}
    for second in range(columns):
        assert {part_of(first, second) for first in range(rows)} == {"train", "held_out"}


def test_parts_share_no_word() -> None:
    drawn: dict[Part, set[str]] = {}
    for part in ("train", "held_out"):
        words = Words(Random(0), part)
        drawn[part] = {words.thing() for _ in range(600)} | {words.number() for _ in range(15)}
        assert len(drawn[part]) == 615  # none twice
    assert not drawn["train"] & drawn["held_out"]


def test_words_of_a_scene_share_no_syllable() -> None:
    words = Words(Random(0), "train")
    drawn = [draw() for _ in range(10) for draw in (words.thing, words.name)]
    assert len({word[:3].lower() for word in drawn}) == len({word[3:] for word in drawn}) == len(drawn)

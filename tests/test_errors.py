"""What a message says about an unknown word."""

import pytest

from prunus.errors import among, nearest

MANY = ["hidden_size", "head_dim", "num_hidden_layers", "vocab_size", "heal", "method", "score", "share", "rotate"]


def test_few_names_are_listed_in_their_order() -> None:
    assert among("widht", ["depth", "width"]) == " (did you mean `width`?); allowed: depth, width"
    assert among("zzz", ["depth", "width"], "it has") == "; it has: depth, width"


def test_of_many_names_the_nearest_come_first_and_the_rest_is_counted() -> None:
    text = among("hiden_size", MANY, "allowed here", "`--help`")
    assert text.startswith(" (did you mean `hidden_size`?); allowed here: hidden_size, ")
    assert text.endswith(" more (all: `--help`)")
    listed = text.partition("here: ")[2].partition(" and ")[0].split(", ")
    assert len(listed) <= 5
    assert len(listed) + int(text.partition(" and ")[2].split()[0]) == len(MANY)
    assert "rotate" not in text


@pytest.mark.parametrize("word", ["hiden_size", "vocab", "healing", "zzz"])
def test_the_suggestion_does_not_depend_on_how_many_are_listed(word: str) -> None:
    assert among(word, MANY).startswith(f"{nearest(word, MANY)}; ")


def test_of_many_names_without_a_near_one_the_first_are_listed() -> None:
    assert among("zzz", MANY) == f"; allowed: {', '.join(MANY[:5])} and 4 more"

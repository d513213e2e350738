"""The words of the world: names, things and numbers, generated, and shared out between training and what is held out.

A name is two syllables, each of a list of 64: 4,096 names. Which of them training may use is decided by the two
syllables' numbers, so that the parts are disjoint by construction, and so that every syllable, and with it every token,
is met in training. What is held out is how they go together.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from prunus.world.config import Part

SYLLABLES = 64
_HELD_OUT = 5  # one in so many

_ONSETS = "bdfghjklmnprstvz"
_FIRST = tuple(vowel + ending for vowel in "aeio" for ending in "lnrm")
_SECOND = tuple(vowel + ending for vowel in "aeio" for ending in "kstd")


def _syllables(rimes: tuple[str, ...]) -> tuple[str, ...]:
    """Each onset with four of the rimes: 64 that differ, in which no letter pair tells much of the next syllable."""
    return tuple(onset + rimes[(4 * turn + place) % 16] for place, onset in enumerate(_ONSETS) for turn in range(4))


FIRST, SECOND = _syllables(_FIRST), _syllables(_SECOND)


def part_of(first: int, second: int) -> Part:
    """Which part a word of these two syllables, or a number of these two digits, belongs to."""
    return "held_out" if (first + 2 * second) % _HELD_OUT == 0 else "train"


class Words:
    """A drawer of words of one part of the world, none of them twice.

    The first 32 names and things share no syllable, so what stood behind a syllable before says how it goes on.

    Args:
        random: Where chance comes from.
        part: Which words it may use.
    """

    def __init__(self, random: Random, part: Part) -> None:
        self.random, self.part = random, part
        self.used: set[str] = set()
        self.heard: set[str] = set()

    def thing(self) -> str:
        """A thing such as `balkos`."""
        return self._unheard()

    def name(self) -> str:
        """A name of a person or a place, such as `Balkos`; no thing of the same drawer is called so."""
        return self._unheard().capitalize()

    def number(self) -> str:
        """A number of two digits."""
        return self._fresh("123456789", "0123456789")

    def _unheard(self) -> str:
        """A word of syllables that were in none; when half of all are used up, they all count as new."""
        if len(self.heard) >= SYLLABLES:
            self.heard.clear()
        while True:
            word = self._fresh(FIRST, SECOND)
            if not self.heard & {word[:3], word[3:]}:
                self.heard |= {word[:3], word[3:]}
                return word
            self.used.remove(word)

    def _fresh(self, first: Sequence[str], second: Sequence[str]) -> str:
        while True:
            i, j = self.random.randrange(len(first)), self.random.randrange(len(second))
            word = first[i] + second[j]
            if word not in self.used and part_of(i, j) == self.part:
                self.used.add(word)
                return word

"""The words of the world: generated names, things and numbers, split between the training and the held-out part.

A name has two syllables, each from a list of 64: 4,096 names. The indices of the two syllables decide its part, so that
the parts are disjoint by construction, and every syllable, thus every token, occurs in training. Only combinations are
held out.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from prunus.world.config import Part

SYLLABLES = 64
_HELD_OUT = 5  # one in 5 words is held out

_ONSETS = "bdfghjklmnprstvz"
_FIRST = tuple(vowel + ending for vowel in "aeio" for ending in "lnrm")
_SECOND = tuple(vowel + ending for vowel in "aeio" for ending in "kstd")


def _syllables(rimes: tuple[str, ...]) -> tuple[str, ...]:
    """Each onset with four of the rimes: 64 different syllables, of which no letter pair predicts the next one."""
    return tuple(onset + rimes[(4 * turn + place) % 16] for place, onset in enumerate(_ONSETS) for turn in range(4))


FIRST, SECOND = _syllables(_FIRST), _syllables(_SECOND)


def part_of(first: int, second: int) -> Part:
    """The part of a word with these two syllables, or of a number with these two digits."""
    return "held_out" if (first + 2 * second) % _HELD_OUT == 0 else "train"


class Words:
    """Draws words of one part of the world without repetition.

    The first 32 names and things share no syllable, so that an earlier occurrence of a syllable determines the next.

    Args:
        random: The random generator.
        part: The part whose words are drawn.
    """

    def __init__(self, random: Random, part: Part) -> None:
        self.random, self.part = random, part
        self.used: set[str] = set()
        self.used_syllables: set[str] = set()

    def thing(self) -> str:
        """A thing such as `balkos`."""
        return self._with_new_syllables()

    def name(self) -> str:
        """A name of a person or a place, such as `Balkos`; never the same word as a thing."""
        return self._with_new_syllables().capitalize()

    def number(self) -> str:
        """A number of two digits."""
        return self._fresh("123456789", "0123456789")

    def _with_new_syllables(self) -> str:
        """A word of unused syllables; when half of all syllables are used, all count as unused again."""
        if len(self.used_syllables) >= SYLLABLES:
            self.used_syllables.clear()
        while True:
            word = self._fresh(FIRST, SECOND)
            if not self.used_syllables & {word[:3], word[3:]}:
                self.used_syllables |= {word[:3], word[3:]}
                return word
            self.used.remove(word)

    def _fresh(self, first: Sequence[str], second: Sequence[str]) -> str:
        while True:
            i, j = self.random.randrange(len(first)), self.random.randrange(len(second))
            word = first[i] + second[j]
            if word not in self.used and part_of(i, j) == self.part:
                self.used.add(word)
                return word

"""Documents that somebody has judged: which answer the same question, and what each is worth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

_FILE = "judged.npz"


@dataclass(frozen=True)
class Judged:
    """What is known of a stream's documents beside their tokens.

    Attributes:
        groups: [N], which question each answers, ascending.
        rewards: [N], what each is worth; where nobody said how much, 1 for what is wanted and 0 for what is not.
        measured: Whether somebody did.
        paired: Whether each question has two answers, of which the first is the chosen one whatever they are worth.
    """

    groups: np.ndarray
    rewards: np.ndarray
    measured: bool = False
    paired: bool = False

    @classmethod
    def open(cls, folder: Path) -> Judged:
        """Read what was saved."""
        with np.load(folder / _FILE) as file:
            return cls(file["groups"], file["rewards"], bool(file["measured"]), bool(file["paired"]))

    def save(self, out: Path) -> None:
        """Write it beside the stream."""
        measured, paired = np.asarray(self.measured), np.asarray(self.paired)
        np.savez(out / _FILE, groups=self.groups, rewards=self.rewards, measured=measured, paired=paired)

    def pairs(self) -> np.ndarray:
        """Of each question the best and the worst answer, [P, 2], the first of equals; none where all are equal."""
        if self.paired:
            return np.arange(len(self.groups)).reshape(-1, 2)
        found = []
        for members in self._members():
            best, worst = members[self.rewards[members].argmax()], members[self.rewards[members].argmin()]
            if self.rewards[best] > self.rewards[worst]:
                found.append((best, worst))
        return np.asarray(found, dtype=np.int64).reshape(-1, 2)

    def best(self) -> np.ndarray:
        """Of each question the best answer, the first of equals, [Q]."""
        return np.asarray([members[self.rewards[members].argmax()] for members in self._members()], dtype=np.int64)

    def _members(self) -> list[np.ndarray]:
        """The documents of each question."""
        borders = np.flatnonzero(np.diff(self.groups)) + 1
        return np.split(np.arange(len(self.groups)), borders)

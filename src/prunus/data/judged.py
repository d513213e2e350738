"""Rewards of answers, grouped by question; stored with a stream whose documents are answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

_FILE = "judged.npz"


@dataclass(frozen=True)
class Judged:
    """Question and reward of each document in a stream.

    Attributes:
        groups: [N], the question that each document answers, ascending.
        rewards: [N], the reward of each; without rewards in the data, 1 for a good answer and 0 for a bad one.
        measured: Whether the data had rewards.
        paired: Whether each question has two answers, the first of which is the chosen one regardless of rewards.
    """

    groups: np.ndarray
    rewards: np.ndarray
    measured: bool = False
    paired: bool = False

    @classmethod
    def open(cls, folder: Path) -> Judged:
        """Read from a folder."""
        with np.load(folder / _FILE) as file:
            return cls(file["groups"], file["rewards"], bool(file["measured"]), bool(file["paired"]))

    def save(self, out: Path) -> None:
        """Write into the folder of the stream."""
        measured, paired = np.asarray(self.measured), np.asarray(self.paired)
        np.savez(out / _FILE, groups=self.groups, rewards=self.rewards, measured=measured, paired=paired)

    def pairs(self) -> np.ndarray:
        """The best and the worst answer to each question, [P, 2]; the first of equals. Ties of all are left out."""
        if self.paired:
            return np.arange(len(self.groups)).reshape(-1, 2)
        result = []
        for members in self._members():
            best, worst = members[self.rewards[members].argmax()], members[self.rewards[members].argmin()]
            if self.rewards[best] > self.rewards[worst]:
                result.append((best, worst))
        return np.asarray(result, dtype=np.int64).reshape(-1, 2)

    def best(self) -> np.ndarray:
        """The best answer to each question, [Q]; the first of equals."""
        return np.asarray([members[self.rewards[members].argmax()] for members in self._members()], dtype=np.int64)

    def _members(self) -> list[np.ndarray]:
        """The documents that answer each question."""
        borders = np.flatnonzero(np.diff(self.groups)) + 1
        return np.split(np.arange(len(self.groups)), borders)

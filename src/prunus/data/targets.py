"""Targets: what a teacher says of blocks of a stream, made small and kept on disk, to be read as the blocks are.

N blocks, S sequence, K kept tokens
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

NUMBERS, IDS, LOG_PROBABILITIES = "numbers.npy", "ids.npy", "log_probabilities.npy"
_MASS = "mass.npy"


@dataclass(frozen=True)
class Targets:
    """The targets of some blocks, mapped from disk.

    Log-probabilities are kept in 16 bits: a probability p is read back within 2⁻¹¹ |log p| of itself, relatively, which
    is less than 0.05 % above 1/e and 0.5 % at 10⁻⁴. The rest has an entry of its own, so that rounding of large entries
    does not drown it.

    Attributes:
        numbers: Which block of the stream each row is, rising, [N].
        ids: The tokens kept, [N, S, K].
        log_probabilities: Of each, and last of all the rest as one, [N, S, K + 1]; None where tokens were drawn, each
            of which has 1 / K.
    """

    numbers: np.ndarray
    ids: np.ndarray
    log_probabilities: np.ndarray | None

    @classmethod
    def open(cls, folder: Path) -> Targets:
        """Map what a `targets` step wrote."""
        file = folder / LOG_PROBABILITIES
        probabilities = np.load(file, mmap_mode="r") if file.is_file() else None
        return cls(np.load(folder / NUMBERS), np.load(folder / IDS, mmap_mode="r"), probabilities)

    def items(self, number: int) -> dict[str, np.ndarray]:
        """What training reads of a block: `target_ids` [S, K], and `target_log_probabilities` [S, K + 1] if any.

        Raises:
            KeyError: The block is none of those kept.
        """
        row = int(np.searchsorted(self.numbers, number))
        if row == len(self.numbers) or self.numbers[row] != number:
            raise KeyError(f"block {number} has no targets")
        items = {"target_ids": self.ids[row].astype(np.int32)}
        if self.log_probabilities is not None:
            items["target_log_probabilities"] = np.array(self.log_probabilities[row])
        return items


class TargetWriter:
    """Targets as they are written, row by row; a killed step goes on after the rows that are whole.

    Args:
        out: The step's folder.
        numbers: The blocks, rising, [N].
    """

    def __init__(self, out: Path, numbers: np.ndarray) -> None:
        self.out, self.numbers = out, numbers
        self.root = out / "checkpoints"

    def begin(self, length: int, count: int, vocabulary: int, weighed: bool) -> None:
        """Make room for all rows unless there is some; for one process to call.

        Args:
            length: S.
            count: K.
            vocabulary: Ids are less than this; up to 2¹⁶ they take 16 bits, else 32.
            weighed: Whether each token has a probability of its own.
        """
        folder = self.root / "targets"
        if (folder / "complete").is_file():
            return
        folder.mkdir(parents=True, exist_ok=True)
        rows = len(self.numbers)
        np.save(self.out / NUMBERS, self.numbers)
        _room(self.out / IDS, np.uint16 if vocabulary <= 2**16 else np.uint32, (rows, length, count))
        if weighed:
            _room(self.out / LOG_PROBABILITIES, np.float16, (rows, length, count + 1))
        np.save(folder / _MASS, np.full(rows, np.nan, dtype=np.float32))
        (folder / "complete").touch()  # an unfinished step with this is gone on with, and not removed

    def open(self) -> None:
        """Map the rows, to write and to read."""
        self.mass: np.ndarray = np.load(self.root / "targets" / _MASS, mmap_mode="r+")
        files = [self.out / name for name in (IDS, LOG_PROBABILITIES)]
        self.files: list[np.memmap] = [np.load(file, mmap_mode="r+") for file in files if file.is_file()]

    def done(self, rows: slice) -> bool:
        """Whether rows are whole."""
        return not np.isnan(self.mass[rows]).any()

    def write(self, rows: slice, arrays: list[np.ndarray], mass: np.ndarray) -> None:
        """Write rows, and then, when they are on disk, that they are whole.

        Args:
            rows: Which.
            arrays: Their ids [R, S, K] and, of tokens that are weighed, log-probabilities [R, S, K + 1].
            mass: What the teacher gives to the tokens kept, the mean of each row, [R].
        """
        for file, array in zip(self.files, arrays, strict=True):
            file[rows] = array
            file.flush()
        self.mass[rows] = mass

    @property
    def nbytes(self) -> int:
        """What the rows take."""
        return sum(file.nbytes for file in self.files)


def _room(file: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    """Make a file of zeros whose blocks are all there: a full disk is an error here, and would end the process later.

    Raises:
        OSError: The disk has no room.
    """
    np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=shape).flush()
    with file.open("r+b") as handle:
        os.posix_fallocate(handle.fileno(), 0, file.stat().st_size)

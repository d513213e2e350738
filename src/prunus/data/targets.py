"""Targets: a teacher's predictions for blocks of a stream, compressed and stored on disk, read block by block.

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
    """The targets of some blocks, memory-mapped.

    Log-probabilities are stored in 16 bits, which gives a probability p a relative error of at most 2⁻¹¹ |log p|: less
    than 0.05 % above 1/e and 0.5 % at 10⁻⁴. The remaining mass has its own entry, so that the rounding of large entries
    does not swamp it.

    Attributes:
        numbers: The number of each row's block in the stream, ascending, [N].
        ids: The tokens kept, [N, S, K].
        log_probabilities: Of each token kept, and as the last entry of the remaining mass, [N, S, K + 1]; None if the
            tokens were sampled, so that each has 1 / K.
    """

    numbers: np.ndarray
    ids: np.ndarray
    log_probabilities: np.ndarray | None

    @classmethod
    def open(cls, folder: Path) -> Targets:
        """Map the output of a `targets` step."""
        file = folder / LOG_PROBABILITIES
        probabilities = np.load(file, mmap_mode="r") if file.is_file() else None
        return cls(np.load(folder / NUMBERS), np.load(folder / IDS, mmap_mode="r"), probabilities)

    def items(self, number: int) -> dict[str, np.ndarray]:
        """The targets of a block for training: `target_ids` [S, K], and `target_log_probabilities` [S, K + 1] if any.

        Raises:
            KeyError: The block has no targets.
        """
        row = int(np.searchsorted(self.numbers, number))
        if row == len(self.numbers) or self.numbers[row] != number:
            raise KeyError(f"block {number} has no targets")
        items = {"target_ids": self.ids[row].astype(np.int32)}
        if self.log_probabilities is not None:
            items["target_log_probabilities"] = np.array(self.log_probabilities[row])
        return items


class TargetWriter:
    """Writes targets row by row; a killed step resumes after the complete rows.

    Args:
        out: The step's folder.
        numbers: The numbers of the blocks, ascending, [N].
    """

    def __init__(self, out: Path, numbers: np.ndarray) -> None:
        self.out, self.numbers = out, numbers
        self.root = out / "checkpoints"

    def begin(self, length: int, count: int, vocabulary: int, weighted: bool) -> None:
        """Allocate the files unless they exist; only one process may call it.

        Args:
            length: S.
            count: K.
            vocabulary: Ids are less than this; up to 2¹⁶ they take 16 bits, else 32.
            weighted: Whether log-probabilities are stored.
        """
        folder = self.root / "targets"
        if (folder / "complete").is_file():
            return
        folder.mkdir(parents=True, exist_ok=True)
        rows = len(self.numbers)
        np.save(self.out / NUMBERS, self.numbers)
        _allocate(self.out / IDS, np.uint16 if vocabulary <= 2**16 else np.uint32, (rows, length, count))
        if weighted:
            _allocate(self.out / LOG_PROBABILITIES, np.float16, (rows, length, count + 1))
        np.save(folder / _MASS, np.full(rows, np.nan, dtype=np.float32))
        (folder / "complete").touch()  # a failed step that has this file is kept and resumed

    def open(self) -> None:
        """Map the files for reading and writing."""
        self.mass: np.ndarray = np.load(self.root / "targets" / _MASS, mmap_mode="r+")
        files = [self.out / name for name in (IDS, LOG_PROBABILITIES)]
        self.files: list[np.memmap] = [np.load(file, mmap_mode="r+") for file in files if file.is_file()]

    def done(self, rows: slice) -> bool:
        """Whether rows are complete."""
        return not np.isnan(self.mass[rows]).any()

    def write(self, rows: slice, arrays: list[np.ndarray], mass: np.ndarray) -> None:
        """Write rows, and after they are on disk mark them as complete.

        Args:
            rows: The rows.
            arrays: Their ids [R, S, K] and, if stored, log-probabilities [R, S, K + 1].
            mass: The teacher's probability mass on the tokens kept, the mean of each row, [R].
        """
        for file, array in zip(self.files, arrays, strict=True):
            file[rows] = array
            file.flush()
        self.mass[rows] = mass

    @property
    def nbytes(self) -> int:
        """Size of the files in bytes."""
        return sum(file.nbytes for file in self.files)


def _allocate(file: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    """Make a file of zeros with all blocks allocated: a full disk is an error here, but would kill the process later.

    Raises:
        OSError: The disk is full.
    """
    np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=shape).flush()
    with file.open("r+b") as handle:
        os.posix_fallocate(handle.fileno(), 0, file.stat().st_size)

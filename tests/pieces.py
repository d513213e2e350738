"""Tiny tensors in many pieces, as those of real models are read, turned and written."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from prunus.models import checkpoint
from prunus.models.checkpoint import TensorPlan

CONSTANTS = (
    "prunus.gguf.rounding._PIECE",
    "prunus.gguf.tensors._PIECE",
    "prunus.fingerprint._READ_BYTES",
    "prunus.models.checkpoint._PIECE_BYTES",
    "prunus.models.values._CACHED",
    "prunus.steps.prune.cut.PIECE_BYTES",
    "prunus.steps.unpack.settings._ROWS",
    "prunus.steps.unpack.tensors._PIECE",
    "prunus.steps.unpack.widened._PIECE",
)
"""All that say how much of a tensor or of a file of weights is in memory at a time: bytes, values or rows."""

SMALL = 300
"""Two or three rows of a tiny model; a last piece is shorter than the others."""

WORKERS = 3


def in_pieces(patch: pytest.MonkeyPatch, size: int | None) -> None:
    """Read, turn and write tensors in pieces of that size, or of their usual one, and several of them side by side.

    All pieces of a tensor are there before the first is written, as a writer is free to do: memory that is handed out
    and then filled again shows.
    """
    for constant in CONSTANTS if size is not None else ():
        patch.setattr(constant, size)
    patch.setattr("prunus.llamacpp.ggml.workers", lambda: WORKERS)
    write = checkpoint._write_file

    def write_collected(file: Path, plans: list[TensorPlan], on_written: Callable[[int], None]) -> None:
        write(file, [replace(plan, pieces=_collected(plan)) for plan in plans], on_written)

    patch.setattr(checkpoint, "_write_file", write_collected)


def _collected(plan: TensorPlan) -> Callable:
    return lambda: iter(list(plan.pieces()))

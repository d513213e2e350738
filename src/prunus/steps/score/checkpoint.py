"""What scoring has done so far, on disk, so that a killed run goes on from there."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from prunus import distributed
from prunus.checkpoints import FOLDER
from prunus.files import sync


class Checkpoint:
    """Named tensors of a running step, written by the clock and read back by whoever comes after.

    Args:
        out: The step's folder. Each process keeps its own state; with another number of them all begin anew.
        minutes: Between two writings.
    """

    def __init__(self, out: Path, minutes: float) -> None:
        self.folder = out / FOLDER / f"score-{distributed.rank()}-of-{distributed.count()}"
        self.interval = minutes * 60
        self.saved = time.monotonic()

    def load(self) -> dict[str, torch.Tensor]:
        """What the last whole checkpoint holds; empty if there is none."""
        file = self.folder / "state.safetensors"
        return load_file(file) if (self.folder / "complete").is_file() else {}

    def save(self, tensors: dict[str, torch.Tensor], now: bool = False) -> None:
        """Write `tensors` if it is time; a kill leaves the checkpoint before it whole."""
        if not now and time.monotonic() - self.saved < self.interval:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        written = self.folder / "state.partial"
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, written)
        sync(written)
        os.replace(written, self.folder / "state.safetensors")
        (self.folder / "complete").touch()
        self.saved = time.monotonic()

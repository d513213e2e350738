"""Checkpoints of scoring, from which a killed run resumes."""

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
    """Named tensors of a running step, saved at intervals and loaded when the run resumes.

    Args:
        out: The step's folder. Each process saves its own state; if the number of processes changes, all start again.
        minutes: Minimum time between two saves.
    """

    def __init__(self, out: Path, minutes: float) -> None:
        self.folder = out / FOLDER / f"score-{distributed.rank()}-of-{distributed.count()}"
        self.interval = minutes * 60
        self.saved = time.monotonic()

    def load(self) -> dict[str, torch.Tensor]:
        """The tensors of the last complete checkpoint; empty if there is none."""
        file = self.folder / "state.safetensors"
        return load_file(file) if (self.folder / "complete").is_file() else {}

    def save(self, tensors: dict[str, torch.Tensor], now: bool = False) -> None:
        """Save `tensors` if the interval has passed, or `now`; a kill leaves the previous checkpoint intact."""
        if not now and time.monotonic() - self.saved < self.interval:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / "state.partial"
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, partial)
        sync(partial)
        os.replace(partial, self.folder / "state.safetensors")
        (self.folder / "complete").touch()
        self.saved = time.monotonic()

"""What a killed step goes on from: a folder in the step's own, which is no part of its result."""

from __future__ import annotations

import shutil
from pathlib import Path

FOLDER = "checkpoints"
CLAIM = "unfinished.json"
"""In a folder whose result is still to be recorded: whose work it is."""


def done_with(out: Path) -> None:
    """Remove the checkpoints of a step that has written its result.

    Where the result is still to be recorded they stay, since a kill or a full disk before that would lose the work;
    whoever records it removes them.
    """
    if not (out / CLAIM).is_file():
        shutil.rmtree(out / FOLDER, ignore_errors=True)

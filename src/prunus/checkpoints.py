"""The checkpoints that a killed step resumes from: a subfolder of its folder, not part of its result."""

from __future__ import annotations

import shutil
from pathlib import Path

FOLDER = "checkpoints"
CLAIM = "unfinished.json"
"""The file in an unfinished artifact's folder that says which work it belongs to."""


def remove_checkpoints(out: Path) -> None:
    """Remove the checkpoints of a step that has written its result.

    They are kept while the result is not recorded yet, since a kill or a full disk before that would lose the work;
    the code that records it removes them.
    """
    if not (out / CLAIM).is_file():
        shutil.rmtree(out / FOLDER, ignore_errors=True)

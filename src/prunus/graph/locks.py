"""Locks on folders in use. The system releases them when a process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from prunus.console import Console
from prunus.errors import ArtifactError


@contextmanager
def lock_run(root: Path) -> Iterator[None]:
    """Lock the folder of a run while the context is open.

    Raises:
        ArtifactError: Another run has locked it.
    """
    with (root / ".lock").open("w") as handle:
        if not _locked(handle, wait=False):
            raise ArtifactError(f"{root}: another run uses this folder; wait for it, or choose another --out")
        yield


@contextmanager
def lock_result(folder: Path, console: Console | None = None) -> Iterator[None]:
    """Lock the folder of one result while the context is open.

    The lock is a file next to the folder, since the folder is renamed when it is finished. It is removed afterwards.

    Args:
        folder: The folder, which may not exist yet.
        console: If given, wait until the lock is free, and print that.

    Raises:
        ArtifactError: Another command has locked it, and `console` is not given.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = folder.with_name(f".{folder.name}.lock")
    handle = _acquired(file, wait=False)
    if handle is None:
        if console is None:
            raise ArtifactError(f"{folder}: another command writes this result; wait for it, or choose another --out")
        console.say(f"waiting for another command that writes {folder}")
        handle = _acquired(file, wait=True)
    assert handle is not None  # with wait=True
    with handle:
        try:
            yield
        finally:
            file.unlink(missing_ok=True)


def _acquired(file: Path, wait: bool) -> IO[str] | None:
    """The lock file, open and locked; None if another process has locked it and `wait` is false."""
    while True:
        handle = file.open("w", encoding="utf-8")
        if not _locked(handle, wait):
            handle.close()
            return None
        if _is_named(handle, file):
            return handle
        handle.close()  # the previous owner removed it: create a new one


def _is_named(handle: IO[str], file: Path) -> bool:
    """Whether the path still refers to the open file."""
    try:
        return os.path.samestat(file.stat(), os.fstat(handle.fileno()))
    except FileNotFoundError:
        return False


def _locked(handle: IO[str], wait: bool) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True

"""Locks on folders that are worked in. The system lets go of them when a process dies, however it dies."""

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
def alone_in(root: Path) -> Iterator[None]:
    """Hold the folder of a run for as long as the context is open.

    Raises:
        ArtifactError: Another run holds it.
    """
    with (root / ".lock").open("w") as handle:
        if not _taken(handle, wait=False):
            raise ArtifactError(f"{root}: another run is at work here; wait for it, or choose another --out")
        yield


@contextmanager
def alone_at(place: Path, console: Console | None = None) -> Iterator[None]:
    """Hold the place of one result for as long as the context is open.

    The lock is a file next to it, which is removed afterwards: the place itself is renamed while it is made.

    Args:
        place: The folder, there or not.
        console: Where given, whoever holds it is waited for, and the user is told.

    Raises:
        ArtifactError: Another command holds it, and nobody is to wait.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    file = place.with_name(f".{place.name}.lock")
    handle = _held(file, wait=False)
    if handle is None:
        if console is None:
            raise ArtifactError(f"{place}: another command writes this result; wait for it, or choose another --out")
        console.say(f"waiting for another command, which makes {place}")
        handle = _held(file, wait=True)
    assert handle is not None  # it was waited for
    with handle:
        try:
            yield
        finally:
            file.unlink(missing_ok=True)


def _held(file: Path, wait: bool) -> IO[str] | None:
    """The lock file, open and held; None where another process holds it and nobody is to wait."""
    while True:
        handle = file.open("w", encoding="utf-8")
        if not _taken(handle, wait):
            handle.close()
            return None
        if _is_named(handle, file):
            return handle
        handle.close()  # whoever held it before removed it: a new one has to be made


def _is_named(handle: IO[str], file: Path) -> bool:
    """Whether an open file still has its name."""
    try:
        return os.path.samestat(file.stat(), os.fstat(handle.fileno()))
    except FileNotFoundError:
        return False


def _taken(handle: IO[str], wait: bool) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True

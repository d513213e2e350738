"""Text and JSON files: always UTF-8, replaced atomically; errors name the file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from prunus.errors import PrunusError

MAX_DEPTH = 100
"""The most levels of nested lists and objects. Prunus's files have fewer than ten, and Python's stack is limited."""

LFS_POINTER = "version https://git-lfs.github.com/spec/"
"""The first line of a file that was cloned without git-lfs."""
_NEW = ".new"


def read_text(file: Path, error: type[PrunusError]) -> str:
    """The text of a UTF-8 file, without a byte order mark.

    Args:
        file: The file.
        error: What to raise.

    Raises:
        PrunusError: `error`: the file cannot be read, is not UTF-8, is empty or is a pointer of git-lfs.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as problem:
        raise error(f"{file}: cannot be read: {problem.strerror or problem}") from None
    except UnicodeDecodeError as problem:
        raise error(f"{file}: not UTF-8: {problem.reason} at byte {problem.start}") from None
    if not text.strip():
        raise error(f"{file}: the file is empty")
    if text.startswith(LFS_POINTER):
        raise error(f"{file}: a git-lfs pointer, not the file itself; run `git lfs pull` in that folder")
    return text


def read_json(file: Path, error: type[PrunusError]) -> Any:
    """The value of a JSON file.

    Raises:
        PrunusError: `error`: as `read_text`, or the text is not JSON.
    """
    return parse_json(read_text(file, error), error, str(file))


def read_object(file: Path, error: type[PrunusError]) -> dict[str, Any]:
    """The value of a JSON file that holds an object.

    Raises:
        PrunusError: `error`: as `read_json`, or the value is not an object.
    """
    value = read_json(file, error)
    if not isinstance(value, dict):
        raise error(f"{file}: holds {type(value).__name__}, expected an object")
    return value


def read_json_lines(file: Path, error: type[PrunusError]) -> Iterator[Any]:
    r"""The values of a JSON Lines file, one after the other.

    Only "\n" ends a line: U+2028, U+2029 and U+0085 may occur inside a JSON string, and `str.splitlines` would
    split there. Empty lines are skipped. The file is read line by line, never as a whole.

    Raises:
        PrunusError: `error`: the file cannot be read, or a line is not JSON; the message names the line.
    """
    try:
        with file.open("rb") as handle:
            for number, line in enumerate(handle, start=1):
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                if text.strip():
                    yield parse_json(text, error, f"{file}, line {number}")
    except OSError as problem:
        raise error(f"{file}: cannot be read: {problem.strerror or problem}") from None
    except UnicodeDecodeError as problem:
        raise error(f"{file}, line {number}: not UTF-8: {problem.reason} at byte {problem.start} of it") from None


def parse_json(text: str | bytes, error: type[PrunusError], where: str) -> Any:
    """The value of a JSON text.

    Args:
        text: The text.
        error: What to raise.
        where: The source of the text, for the message.

    Raises:
        PrunusError: `error`: not JSON, or nested deeper than `MAX_DEPTH`.
    """
    try:
        value = json.loads(text)
    except ValueError as problem:
        raise error(f"{where}: not JSON: {problem}") from None
    except RecursionError:
        raise error(f"{where}: nested deeper than {MAX_DEPTH} levels") from None
    if depth_exceeds(value, MAX_DEPTH):
        raise error(f"{where}: nested deeper than {MAX_DEPTH} levels")
    return value


def depth_exceeds(value: Any, limit: int) -> bool:
    """Whether lists and mappings in `value` are nested more than `limit` levels deep, computed without recursion."""
    level = [value]
    for _ in range(limit + 1):
        level = [part for part in level if isinstance(part, (dict, list))]
        if not level:
            return False
        level = [part for item in level for part in (item.values() if isinstance(item, dict) else item)]
    return True


def replace_text(file: Path, text: str) -> None:
    """Write a text file atomically: a reader, also after a crash, sees the old text or the new one, never a part.

    Raises:
        OSError: As the system raises; the old file is unchanged.
    """
    new = file.with_name(f".{file.name}.{os.getpid()}{_NEW}")
    try:
        with new.open("w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)


def replace_json(file: Path, value: Any) -> None:
    """Write a JSON file as `replace_text` does, indented by two spaces.

    Raises:
        ValueError: A number is not finite, which JSON cannot represent.
    """
    replace_text(file, json.dumps(value, indent=2, allow_nan=False) + "\n")


def cache_folder() -> Path:
    """The folder of what all runs share: `prunus` in `XDG_CACHE_HOME`, or in `~/.cache` if that is not set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prunus"


def read_cache(file: Path) -> dict[str, Any]:
    """The object in a file of the cache; empty if there is none or it is damaged."""
    with suppress(PrunusError):
        return read_object(file, PrunusError) if file.is_file() else {}
    return {}


def write_cache(file: Path, value: Mapping[str, Any]) -> None:
    """Write a file of the cache; if that fails, what it would hold is computed again next time."""
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_json(file, value)


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files that a kill inside `replace_text` left in a folder tree."""
    for file in folder.rglob(f".*{_NEW}"):
        file.unlink(missing_ok=True)


def sync(place: Path) -> None:
    """Flush a file's content, or a folder's list of names, to the disk.

    Raises:
        OSError: The disk is full or fails. Not raised for folders, which some file systems cannot flush.
    """
    handle = os.open(place, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not place.is_dir():
            raise
    finally:
        os.close(handle)

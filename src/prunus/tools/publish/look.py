"""Scanning whole files for keys, in any encoding."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prunus.keys import KINDS, SECRET, environment_keys

_PART = 1 << 20
_OVERLAP = 8 << 10  # bytes shared by successive parts, so that no key is split; the longest in UTF-32 has a quarter
_TEXT = {"", ".json", ".jsonl", ".md", ".txt", ".jinja", ".yaml", ".yml", ".rst"}
_RUN = 8  # the shortest run of printable characters that is scanned in a binary file; no key is shorter
_LETTERS = bytes(ord("a" if byte in b"\t\n\r" or 32 <= byte < 127 else " ") for byte in range(256))
_ESCAPE = re.compile(rb"\\u00([0-7][0-9a-fA-F])")


@dataclass(frozen=True)
class ScannedFile:
    """A scanned file.

    Attributes:
        path: The file.
        size: Its size in bytes.
        sha256: Its digest, in hex, which is compared again before the upload.
        faults: The kind and line of each key in it; never the key itself.
    """

    path: Path
    size: int
    sha256: str
    faults: tuple[str, ...]


def scan(file: Path) -> ScannedFile:
    """Read a whole file and report everything that looks like a key.

    Finds keys in ASCII and its extensions (UTF-8, Latin-1), in UTF-16 and UTF-32 of either byte order, and in JSON
    escapes; thus also in the metadata of safetensors and GGUF, which is text.

    Raises:
        OSError: It cannot be read.
    """
    hasher = hashlib.sha256()
    faults: dict[str, None] = {}
    size = lines = 0
    before = b""
    is_text = file.suffix in _TEXT
    with file.open("rb") as handle:
        while part := handle.read(_PART):
            hasher.update(part)
            size += len(part)
            data = before + part
            for what, line in _found(data, is_text):
                faults[f"{what} in line {lines + line}" if is_text else what] = None
            before = data[-_OVERLAP:]
            lines += data.count(b"\n", 0, len(data) - len(before))
    return ScannedFile(file, size, hasher.hexdigest(), tuple(faults))


def _found(data: bytes, is_text: bool) -> Iterator[tuple[str, int]]:
    """The kinds of keys in some bytes, and the line of each, from 1."""
    known = {name: key.encode() for name, key in environment_keys().items() if len(key) >= 2 * SECRET}
    for view in _views(data, is_text):
        small = view.lower()
        for kind in KINDS:
            if any(begin in (small if kind.any_case else view) for begin in kind.begins):
                for match in (kind.pattern if is_text else kind.inside).finditer(view):
                    yield kind.name, 1 + view.count(b"\n", 0, match.start())
        for name, key in known.items():
            if key in view:
                yield f"the value of {name} on this machine", 1 + view.count(b"\n", 0, view.index(key))


def _views(data: bytes, is_text: bool) -> Iterator[bytes]:
    """The versions of the bytes that are searched; line ends are kept, so that lines can be counted.

    They are: unchanged; without the zeros that UTF-16 and UTF-32 put between letters; with JSON escapes decoded.
    """
    views = [data, data.replace(b"\0", b"")] if b"\0" in data else [data]
    for view in views if is_text else map(_texts, views):
        yield view
        if b"\\" in view:
            yield _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), view).replace(b"\\/", b"/")


def _texts(data: bytes) -> bytes:
    """The runs of printable characters in binary data, one per line."""
    letters = data.translate(_LETTERS)
    runs, start = [], letters.find(b"a" * _RUN)
    while start >= 0:
        end = letters.find(b" ", start)
        end = len(data) if end < 0 else end
        runs.append(data[start:end])
        start = letters.find(b"a" * _RUN, end)
    return b"\n".join(runs)

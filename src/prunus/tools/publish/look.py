"""Looking through files for keys, byte by byte and to the end, whatever their coding."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prunus.keys import KINDS, SECRET, environment_keys

_PART = 1 << 20
_OVERLAP = 8 << 10  # of one part and the next, so that no key is cut; four times the longest that is matched, in UTF-32
_TEXT = {"", ".json", ".jsonl", ".md", ".txt", ".jinja", ".yaml", ".yml", ".rst"}
_RUN = 8  # letters in a row that are looked at in a file of numbers; no key is shorter
_LETTERS = bytes(ord("a" if byte in b"\t\n\r" or 32 <= byte < 127 else " ") for byte in range(256))
_ESCAPE = re.compile(rb"\\u00([0-7][0-9a-fA-F])")


@dataclass(frozen=True)
class Looked:
    """A file that was looked through.

    Attributes:
        path: The file.
        size: Its bytes.
        sha256: Their digest, in hex: what is sent must have it.
        faults: What was found in it, a kind and a place each; never the key itself.
    """

    path: Path
    size: int
    sha256: str
    faults: tuple[str, ...]


def look_through(file: Path) -> Looked:
    """Read a whole file, whatever it is called, and note what looks like a key.

    Keys are found in ASCII and all that begins with it (UTF-8, Latin-1), in UTF-16 and UTF-32 of either order, and in
    JSON's escapes. So those in the metadata of safetensors and GGUF are, which stand there as text.

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
    return Looked(file, size, hasher.hexdigest(), tuple(faults))


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
    """The bytes as a key could stand in them; line ends are kept, so that lines can be counted.

    As they are; without the zeros that UTF-16 and UTF-32 put between letters; and with JSON's escapes read.
    """
    views = [data, data.replace(b"\0", b"")] if b"\0" in data else [data]
    for view in views if is_text else map(_texts, views):
        yield view
        if b"\\" in view:
            yield _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), view).replace(b"\\/", b"/")


def _texts(data: bytes) -> bytes:
    """What in a file of numbers could be text, a line each: there is little, and it is found at the disk's speed."""
    letters = data.translate(_LETTERS)
    found, start = [], letters.find(b"a" * _RUN)
    while start >= 0:
        end = letters.find(b" ", start)
        end = len(data) if end < 0 else end
        found.append(data[start:end])
        start = letters.find(b"a" * _RUN, end)
    return b"\n".join(found)

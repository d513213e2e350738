"""Digests: of values, and of files that may be too large to read whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_WHOLE = 64 << 20  # files up to this many bytes are read whole
_SAMPLES, _SAMPLE_BYTES = 256, 64 << 10


def digest(value: Any) -> str:
    """The SHA-256 of `value` written as canonical JSON, in hex."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_file(file: Path) -> str:
    """The SHA-256 of a whole file, in hex."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def fingerprint_files(files: Iterable[Path]) -> str:
    """One digest over the names and contents of files, whatever folder they lie in.

    A file of more than 64 MiB is told by its size, its first and its last bytes, and 256 samples of 64 KiB spread
    evenly over it: training changes every block of a weight file, and reading 16 GB to plan a run would take a
    minute. Each artifact's record holds full hashes.
    """
    return digest(sorted([file.name, _fingerprint(file)] for file in files))


def _fingerprint(file: Path) -> str:
    size = file.stat().st_size
    if size <= _WHOLE:
        return sha256_file(file)
    hasher = hashlib.sha256(str(size).encode())
    with file.open("rb") as handle:
        for i in range(_SAMPLES):
            handle.seek((size - _SAMPLE_BYTES) * i // (_SAMPLES - 1))
            hasher.update(handle.read(_SAMPLE_BYTES))
    return hasher.hexdigest()

"""What commands do about files that they are given, before they use them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prunus.console import Console
from prunus.graph.integrity import check_artifact


def check_recorded(paths: Sequence[str], console: Console) -> None:
    """Compare the files of finished results, and of those that GGUF files lie in, with their checksums.

    Raises:
        ArtifactError: One is damaged, or missing.
    """
    for path in (Path(path).expanduser() for path in paths):
        folder = path if path.is_dir() else path.parent
        if path.exists():
            check_artifact(folder, console)


def look_at_files(paths: Sequence[str], console: Console) -> None:
    """Tell what can be known of the GGUF files among them, as `export` does of those that it writes."""
    from prunus.llamacpp.look import look_at

    for file in (Path(path).expanduser() for path in paths):
        if file.is_file():
            for line in look_at(file):
                console.warn(line)

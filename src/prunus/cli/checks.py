"""Checks of files that are passed to commands, before they are used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prunus.console import Console
from prunus.graph.integrity import check_artifact


def check_recorded(paths: Sequence[str], console: Console) -> None:
    """Compare files with their checksums, if they are folders of finished results or are in one.

    Raises:
        ArtifactError: A file is damaged or missing.
    """
    for path in (Path(path).expanduser() for path in paths):
        folder = path if path.is_dir() else path.parent
        if path.exists():
            check_artifact(folder, console)


def warn_about_files(paths: Sequence[str], console: Console) -> None:
    """Print warnings about the GGUF files among `paths`, as `export` does for those that it writes."""
    from prunus.llamacpp.sanity import file_warnings

    for file in (Path(path).expanduser() for path in paths):
        if file.is_file():
            for line in file_warnings(file):
                console.warn(line)

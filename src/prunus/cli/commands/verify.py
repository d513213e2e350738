"""The command `verify`: compare files with their recorded checksums."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from prunus.console import Console, human_bytes
from prunus.errors import ArtifactError
from prunus.graph.integrity import damages, unexpected
from prunus.graph.records import RECORD, read_record


@dataclass(kw_only=True)
class Verify:
    """Read every file of a run, or of one result, and report files that are damaged, missing or unexpected."""

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """Folder of a run, or of one of its results."""

    def __call__(self, console: Console) -> None:
        """Read every file, compare it with its record, and print the differences.

        Raises:
            ArtifactError: A file differs from its record, or the folder has no finished result.
        """
        folders = artifacts_in(Path(self.run))
        problems: list[str] = []
        files = nbytes = 0
        for folder in folders:
            try:
                record = read_record(folder)
                assert record is not None  # the folder was found by its record
            except ArtifactError as error:
                problems.append(str(error))
                continue
            problems += damages(folder, record, console)
            problems += (f"{folder / name}: unexpected: not part of the result" for name in unexpected(folder, record))
            files += len(record["files"])
            nbytes += sum(facts["bytes"] for facts in record["files"].values())
        if problems:
            text = "\n  ".join(problems)
            raise ArtifactError(f"{self.run}: {len(problems)} files are not as recorded:\n  {text}")
        console.say(f"{len(folders)} results, {files} files, {human_bytes(nbytes)}: all as recorded")


def artifacts_in(root: Path) -> list[Path]:
    """The folders of all finished results in a folder, itself included; unfinished ones are skipped.

    Raises:
        ArtifactError: There is none.
    """
    found = [record.parent for record in sorted(_records(root))]
    if not found:
        raise ArtifactError(f"{root}: contains no finished result; expected the folder of a run, or one with {RECORD}")
    return found


def _records(root: Path) -> Iterator[Path]:
    for record in root.rglob(RECORD):
        if not any(part.endswith(".partial") for part in record.relative_to(root).parts):
            yield record

"""Writes the report of a run and prints its tables."""

from __future__ import annotations

from pathlib import Path

from prunus.cli.render import show_results
from prunus.console import Console
from prunus.graph.integrity import check_artifact
from prunus.report.records import load_run


def show_report(root: Path, out: str | None, console: Console) -> None:
    """Write the report and the students' model cards, and print the final tables.

    For a run in a read-only folder, the report can be written to `out`.

    Raises:
        ArtifactError: The folder has no run, or a record in it is damaged.
    """
    from prunus.report.card import write_cards
    from prunus.report.step import write_report

    for result in load_run(root).results:
        if "seal" in result.record:  # records of earlier versions have none
            check_artifact(result.folder, console, text_only=True)
    report = write_report(root, Path(out) if out else root / "report.html")
    try:
        write_cards(root)
    except OSError as error:
        if out is None:
            raise
        console.warn(f"the model cards were not updated: {error.filename}: {error.strerror}")
    show_results(root, console)
    console.say(f"report: {report}")

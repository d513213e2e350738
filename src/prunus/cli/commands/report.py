"""The command `report`: write the report of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from prunus.cli.reporting import show_report
from prunus.console import Console


@dataclass(kw_only=True)
class Report:
    """Write the report of a run as one HTML page, and print its table."""

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """Folder of the run."""
    out: str | None = None
    """File to write. If unset: `report.html` in the run's folder."""

    def __call__(self, console: Console) -> None:
        """Read the records and write the page."""
        show_report(Path(self.run), self.out, console)

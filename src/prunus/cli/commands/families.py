"""The command `families`: list the families."""

from __future__ import annotations

import json
from dataclasses import dataclass

from prunus.console import Console
from prunus.errors import RecipeError
from prunus.models.overview import HEADER, cells, markdown, overview


@dataclass(kw_only=True)
class Families:
    """List the families of models, and what works with each: cuts, rotation, refit, export."""

    json: bool = False
    """Print JSON."""
    markdown: bool = False
    """Print the table of docs/families.md."""

    def __call__(self, console: Console) -> None:
        """Print the list."""
        if self.json and self.markdown:
            raise RecipeError("--json and --markdown: expected one of them")
        if self.json:
            print(json.dumps(overview(), indent=2, ensure_ascii=False))
        elif self.markdown:
            print(markdown())
        else:
            plain = [name.replace("`", "") for name in HEADER[:-1]]
            rows = [[cell.replace("`", "") for cell in cells(row)[:-1]] for row in overview()]
            console.table("Families", plain, rows)

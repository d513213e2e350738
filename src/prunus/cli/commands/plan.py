"""The command `plan`: check a recipe and show its steps."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from prunus.cli.commands.run import Run
from prunus.cli.render import show_fits
from prunus.console import Console
from prunus.errors import RecipeError
from prunus.pipeline.fitting import fits
from prunus.pipeline.planned import Plan as Planned
from prunus.pipeline.search.limits import quantity


@dataclass(kw_only=True)
class Plan(Run):
    """Check a recipe and show its steps, the students' shapes, tokens, FLOPs, memory and disk."""

    dry_run: Annotated[bool, tyro.conf.Suppress] = True
    memory: str | None = None
    """Memory of a GPU, such as `24GB`: also show with which options each student's distillation fits in it."""

    def _show(self, plan: Planned, console: Console) -> None:
        """Show the plan, and what fits."""
        limit = None if self.memory is None else self._limit()
        super()._show(plan, console)
        if limit is not None:
            show_fits(list(fits(plan)), limit, console)

    def _limit(self) -> float:
        """The memory in bytes.

        Raises:
            RecipeError: It is not a number of bytes.
        """
        found: dict[str, Any] = {}
        with suppress(ValueError):
            found = quantity(self.memory, "memory")
        if "at_most" not in found or found.get("of_teacher"):
            raise RecipeError(f"--memory: {self.memory!r}: expected a number of bytes, such as 24GB or 22.5GiB")
        return float(found["at_most"])

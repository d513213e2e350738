"""The command `run`: carry out a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import AvoidSubcommands

from prunus import distributed
from prunus.cli.base import Flat
from prunus.cli.render import show_plan
from prunus.cli.reporting import show_report
from prunus.console import Console
from prunus.errors import PrunusError, RunError
from prunus.pipeline.machine import busy
from prunus.pipeline.plan import make_plan
from prunus.pipeline.planned import Plan
from prunus.pipeline.recipe import Recipe
from prunus.pipeline.run import run_plan


@dataclass(kw_only=True)
class Run:
    """Carry out a recipe. Finished steps are kept, and every option of the recipe can also be set as a flag."""

    recipe: Annotated[AvoidSubcommands[Recipe], Flat]
    out: str | None = None
    """Folder of the run. If unset: `runs/NAME`."""
    dry_run: bool = False
    """Show the plan and do nothing."""

    def __call__(self, console: Console) -> None:
        """Plan the run, execute it, and write the report."""
        plan = make_plan(self.recipe, Path(self.out or f"runs/{self.recipe.name}"), preview=self.dry_run)
        if self.dry_run:
            self._show(plan, console)
            return
        if distributed.rank() == 0 and (note := busy()):
            console.warn(note)
        failed: RunError | None = None
        try:
            run_plan(plan, console)
        except RunError as error:
            failed = error
        try:
            if distributed.rank() == 0:
                show_report(plan.root, None, console)
        except PrunusError as error:
            raise error if failed is None else RunError(f"{failed}\n  report: {error}") from None
        if failed is not None:
            raise failed

    def _show(self, plan: Plan, console: Console) -> None:
        """Show the plan."""
        show_plan(plan, console)

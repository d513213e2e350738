"""The command `plan`: check a recipe and show its steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from prunus.cli.commands.run import Run


@dataclass(kw_only=True)
class Plan(Run):
    """Check a recipe and show its steps, the students' shapes, tokens, FLOPs, memory and disk."""

    dry_run: Annotated[bool, tyro.conf.Suppress] = True

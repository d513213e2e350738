"""The command `bench`: time models side by side."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from prunus.cli.base import Flat
from prunus.cli.checks import check_recorded
from prunus.cli.render import show_speeds
from prunus.console import Console
from prunus.errors import RecipeError
from prunus.pipeline.machine import hardware
from prunus.runtime import Runtime
from prunus.tools.bench.config import BenchConfig


@dataclass(kw_only=True)
class Bench:
    """Compare models in speed of prompt processing and generation, and in memory, with ratios to the first."""

    models: Annotated[Positional[tuple[str, ...]], arg(metavar="FOLDER_OR_GGUF...")]
    """Model folders and GGUF files: the teacher first, then its students."""
    json: str | None = None
    """File to write the figures to, as JSON."""
    config: Annotated[BenchConfig, Flat]
    runtime: Runtime = field(default_factory=Runtime)

    def __call__(self, console: Console) -> None:
        """Measure the models and print the table."""
        from prunus.tools.bench.compare import compare

        if not self.models:
            raise RecipeError("no models given; usage: prunus bench FOLDER_OR_GGUF...")
        check_recorded(self.models, console)
        with tempfile.TemporaryDirectory() as place:
            rows = compare(self.models, self.config, self.runtime, Path(place), console)
        show_speeds(rows, console)
        if self.json is not None:
            facts = {"hardware": hardware(), **self.config.model_dump(), "models": rows}
            Path(self.json).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")

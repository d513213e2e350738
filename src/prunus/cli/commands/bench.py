"""The command `bench`: time models side by side."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from prunus.cli.base import Flat, located, sources_of
from prunus.cli.checks import check_recorded
from prunus.cli.render import show_draft, show_speeds
from prunus.console import Console
from prunus.errors import RecipeError
from prunus.pipeline.machine import hardware
from prunus.runtime import Runtime
from prunus.tools.bench.config import BenchConfig


@dataclass(kw_only=True)
class Bench:
    """Compare models in speed of prompt processing and generation, and in memory; or one model with a draft model."""

    models: Annotated[Positional[tuple[str, ...]], arg(metavar="FOLDER_OR_GGUF...")]
    """Model folders and GGUF files: the teacher first, then its students."""
    draft: str | None = None
    """Folder of a smaller model with the same tokens, such as a student, that drafts for the model (speculative
    decoding). Needs --corpus."""
    corpus: tuple[str, ...] = ()
    """With --draft: text on which acceptance is measured, and whose openings are continued: files (.jsonl, .json, .csv,
    .parquet, .txt), datasets on the hub, `builtin:python` or `builtin:world`."""
    column: str = "text"
    """Column that holds the text."""
    json: str | None = None
    """File to write the figures to, as JSON."""
    config: Annotated[BenchConfig, Flat]
    runtime: Runtime = field(default_factory=Runtime)

    def __call__(self, console: Console) -> None:
        """Measure the models and print the table."""
        from prunus.tools.bench.compare import compare

        if not self.models:
            raise RecipeError("no models given; usage: prunus bench FOLDER_OR_GGUF...")
        if (self.draft is None) != (not self.corpus):
            raise RecipeError("--draft and --corpus: give both, or neither")
        check_recorded([*self.models, *([self.draft] if self.draft else [])], console)
        if self.draft is not None:
            self._with_draft(self.draft, console)
            return
        with tempfile.TemporaryDirectory() as place:
            rows = compare(self.models, self.config, self.runtime, Path(place), console)
        show_speeds(rows, console)
        self._keep({"models": rows})

    def _with_draft(self, draft: str, console: Console) -> None:
        """Measure one model with its draft, and print the tables."""
        from prunus.tools.bench.speculative import speculate

        if len(self.models) != 1:
            raise RecipeError(f"--draft: drafts for one model; {len(self.models)} models are given")
        model, small = located(self.models[0], "MODEL"), located(draft, "--draft")
        sources = sources_of(self.corpus, self.column, "--corpus")
        with tempfile.TemporaryDirectory() as place:
            found = speculate(
                model.folder.path, small.folder.path, sources, self.config, self.runtime, Path(place), console
            )
        show_draft(found, console)
        self._keep(found)

    def _keep(self, found: dict[str, Any]) -> None:
        """Write the figures to `--json`."""
        if self.json is not None:
            facts = {"hardware": hardware(), **self.config.model_dump(), **found}
            Path(self.json).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")

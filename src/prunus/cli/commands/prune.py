"""The command `prune`: cut a student from a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from prunus.cli.base import Flat, Single, Text, finished, located
from prunus.console import Console
from prunus.errors import RecipeError
from prunus.graph.steps import Given, Step, given_model
from prunus.steps.prune.config import PruneConfig
from prunus.steps.prune.plan import check_cut
from prunus.steps.score.config import ScoreConfig


@dataclass(kw_only=True)
class Prune(Single):
    """Prune a model to a student. The cut is streamed: it never loads the whole model."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """Model folder, id on the hub, or GGUF file."""
    scores: str | None = None
    """Folder written by `prunus score`. Not needed if all choices are random."""
    corpus: tuple[str, ...] = ()
    """Text for --vocab-size (token counts), for --heal, and for --importance.layers refit. If given, the student is
    also compared with its teacher after the cut (--check-samples)."""
    column: str = "text"
    """Column that holds the text."""
    config: Annotated[PruneConfig, Flat]

    def __call__(self, console: Console) -> None:
        """Run the step."""
        if self.config.like is not None:
            raise RecipeError(f"--like: {self.config.like!r}: works in recipes only, where it names another student")
        if self.config.reads_text and not self.corpus:
            raise RecipeError(
                "--corpus: missing; --vocab-size counts its tokens, and --heal and `refit` compute activations on it"
            )
        model = located(self.model)
        target = self.config.target(model.folder.shape, "prune")
        check_cut(self.config, model.folder.shape, target, "prune")
        read = self.config.statistics(model.folder.shape, target)
        if read and self.scores is None:
            names = ", ".join(sorted(read))
            raise RecipeError(f"--scores: missing; this cut needs {names}: give a folder written by `prunus score`")
        inputs: dict[str, Step | Given] = {"model": given_model(model)}
        if self.corpus and self.config.takes_text:
            inputs["tokens"] = Text(corpus=self.corpus, column=self.column).stream(model, "corpus", self.out)
        if self.scores is not None:
            inputs["scores"] = finished(Path(self.scores), "--scores", ScoreConfig.kind)
        self.do(self.config.with_defaults(target.size()), inputs, console)

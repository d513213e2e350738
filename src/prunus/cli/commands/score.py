"""The command `score`: score a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from prunus.cli.base import Flat, Single, Text, located
from prunus.console import Console
from prunus.graph.steps import Given, Step, given_model
from prunus.steps.score.config import ScoreConfig
from prunus.steps.score.plan import given_task


@dataclass(kw_only=True)
class Score(Single):
    """Score the layers, channels, heads and neurons of a model on your text."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """Model folder, id on the hub, or GGUF file."""
    text: Annotated[Text, Flat]
    config: Annotated[ScoreConfig, Flat]

    def __call__(self, console: Console) -> None:
        """Run the step."""
        model = located(self.model)
        stream = self.text.stream(model, "corpus", self.out)
        inputs: dict[str, Step | Given] = {"model": given_model(model), "tokens": stream, **given_task(self.config)}
        self.do(self.config, inputs, console)

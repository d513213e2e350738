"""The command `correct`: continue training a teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from prunus.cli.base import Flat, Single, Text, located
from prunus.console import Console
from prunus.errors import RecipeError
from prunus.graph.steps import given_model
from prunus.models.nest import refuse_nest
from prunus.steps.correct.config import CorrectConfig


@dataclass(kw_only=True)
class Correct(Single):
    """Continue training a teacher on your text, by plain cross-entropy (teacher correction)."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """The teacher: folder, id on the hub, or GGUF file."""
    text: Annotated[Text, Flat]
    config: Annotated[CorrectConfig, Flat]

    def __call__(self, console: Console) -> None:
        """Run the step."""
        if not self.config.tokens:
            raise RecipeError("--tokens: 0 would not train the teacher; give at least one step's tokens")
        model = located(self.model)
        refuse_nest(model.folder.path, "MODEL")
        stream = self.text.stream(model, "corpus", self.out)
        self.do(self.config, {"model": given_model(model), "tokens": stream}, console)

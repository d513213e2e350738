"""The command `generate`: generate text with a teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from prunus.cli.base import HUB, Flat, Single, Text, located, sources_of
from prunus.console import Console
from prunus.errors import RecipeError
from prunus.graph.steps import Given, Step, given_model
from prunus.models.folder import has_chat_template
from prunus.steps.generate.config import GenerateConfig
from prunus.steps.generate.plan import given_prompts
from prunus.steps.generate.prompts import check_prompts


@dataclass(kw_only=True)
class Generate(Single):
    """Generate training text with a teacher: answers to prompts, or continuations of your text."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """The teacher: folder, id on the hub, or GGUF file."""
    corpus: tuple[str, ...] = ()
    """Text whose documents' openings the teacher continues."""
    prompts: tuple[str, ...] = ()
    """Files or datasets of prompts to answer instead: a column of texts, or of lists of {role, content}."""
    column: str = "text"
    """Column that holds the text or the prompts."""
    config: Annotated[GenerateConfig, Flat]

    def __call__(self, console: Console) -> None:
        """Run the step."""
        if bool(self.corpus) == bool(self.prompts):
            raise RecipeError("--corpus or --prompts: give exactly one: text to continue, or prompts to answer")
        model = located(self.model)
        config = self.config.model_copy(update={"prompts": sources_of(self.prompts, self.column, "--prompts")})
        config.check_context(model.folder.context, config.kind)
        for source in config.prompts:
            check_prompts(source, "--prompts", has_chat_template(model.folder.path))
        inputs: dict[str, Step | Given] = {"model": given_model(model), **given_prompts(config, HUB)}
        if self.corpus:
            inputs["tokens"] = Text(corpus=self.corpus, column=self.column).stream(model, "corpus", self.out)
        self.do(config, inputs, console)

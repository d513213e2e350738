"""The command `align`: align a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import AvoidSubcommands, Positional, arg

from prunus.cli.base import HUB, Flat, Single, located
from prunus.cli.render import show_preview
from prunus.config import parse
from prunus.console import Console
from prunus.data.config import ChatSource
from prunus.graph.steps import given_model, given_tokenizer
from prunus.models.nest import refuse_nest
from prunus.steps.align.config import AlignConfig
from prunus.steps.align.plan import Alignment
from prunus.training.plan import check_rank, check_runtime


@dataclass(kw_only=True)
class Align(Single):
    """Align a model by one method: SFT, preference methods, a reward model, or training on its own answers."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """Model folder, id on the hub, or GGUF file."""
    data: tuple[str, ...]
    """Files or datasets of conversations, of preference pairs, or of answers with labels."""
    template: str | None = None
    """Chat template (Jinja) that replaces the model's: a file, or `builtin:plain`."""
    config: Annotated[AvoidSubcommands[AlignConfig], Flat]

    def __call__(self, console: Console) -> None:
        """Run the steps, round by round."""
        model = located(self.model)
        refuse_nest(model.folder.path, "MODEL")
        sources = tuple(parse(ChatSource, path, "--data") for path in self.data)
        check_runtime(self.runtime, [self.config])
        check_rank(self.config, model.folder.shape, "align")
        stages = Alignment((self.config.with_defaults(model.folder.shape.size()),), sources, self.template, HUB)
        for preview in stages.check(model.folder.context, given_tokenizer(model)):
            show_preview(preview, console)
        self.do_all(list(stages.steps("align", given_model(model), None, Path(self.out).parent)), console)

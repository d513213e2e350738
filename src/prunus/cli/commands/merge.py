"""The command `merge`: merge models of one shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import AvoidSubcommands, Positional, arg

from prunus.cli.base import HUB, Flat, Single, conversations_of, flag_of, located
from prunus.config import parse_named
from prunus.console import Console
from prunus.errors import RecipeError
from prunus.graph.steps import given_model
from prunus.models.folder import has_chat_template
from prunus.steps.merge.compatibility import check_mergeable
from prunus.steps.merge.config import MergeConfig, name_of
from prunus.steps.merge.plan import check_fitness, given_fitness


@dataclass(kw_only=True)
class Merge(Single):
    """Merge models of one shape into one, a weight at a time, with given settings or by evolution."""

    models: Annotated[Positional[tuple[str, ...]], arg(metavar="MODEL")]
    """Folders or hub ids of the models, in order."""
    base: str | None = None
    """Common ancestor of the models, for methods that need one."""
    tasks: tuple[str, ...] = ()
    """Tasks that evolution optimises: NAME=DATA, a file of conversations with checks; or the name of a skill, for
    training conversations of `builtin:world`."""
    config: Annotated[AvoidSubcommands[MergeConfig], Flat]

    def __call__(self, console: Console) -> None:
        """Run the step."""
        models = [located(path) for path in self.models]
        base = located(self.base, "--base") if self.base is not None else None
        if not models:
            raise RecipeError("MODEL: missing; give the models to merge")
        config = self._with_tasks()
        config.check_fits(len(models), base is not None, models[0].folder.shape.num_hidden_layers, config.kind)
        check_mergeable([model.folder for model in models], base.folder if base else None, config.kind)
        if config.evolve.trials:
            check_fitness(config.evolve, (), has_chat_template(models[0].folder.path), config.kind, HUB)
        inputs = {name_of(number): given_model(model) for number, model in enumerate(models)}
        inputs |= {"base": given_model(base)} if base else {}
        self.do(config, {**inputs, **given_fitness(config, HUB)}, console)

    def _with_tasks(self) -> MergeConfig:
        """The options with the tasks of `--tasks`."""
        evolve = {**self.config.evolve.model_dump(), "tasks": conversations_of(self.tasks)}
        raw = {**self.config.model_dump(), "evolve": evolve}
        return parse_named(
            MergeConfig, raw, lambda path: flag_of([key for key in path if key != "evolve"]), "prunus merge"
        )

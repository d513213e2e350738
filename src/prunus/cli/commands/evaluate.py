"""The command `evaluate`: measure a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from prunus.cli.base import Flat, Single, Text, finished, flag_of, located
from prunus.config import parse_named
from prunus.console import Console
from prunus.graph.steps import Given, Step, given_model
from prunus.models.folder import has_chat_template
from prunus.steps.evaluate.check import check_chat, check_tasks
from prunus.steps.evaluate.config import EvaluateConfig
from prunus.steps.evaluate.plan import check_same_tokens, given_data


@dataclass(kw_only=True)
class Evaluate(Single):
    """Evaluate a model on held-out text and tasks, paired with its teacher."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """Model folder, id on the hub, or GGUF file."""
    teacher: str | None = None
    """The teacher to compare with: folder, id on the hub, or GGUF file."""
    beside: str | None = None
    """Folder of the teacher's evaluation, whose answers to the tasks are paired with the model's."""
    tasks: tuple[str, ...] = ()
    """Tasks to evaluate: names, or NAME=DATA with the path of a local copy."""
    limit: int | None = None
    """Evaluate only the first items of each task, at most this many."""
    text: Annotated[Text, Flat]
    config: Annotated[EvaluateConfig, Flat]

    def __call__(self, console: Console) -> None:
        """Run the step."""
        model = located(self.model)
        stream = self.text.stream(model, "held_out", self.out)
        inputs: dict[str, Step | Given] = {"model": given_model(model), "tokens": stream}
        if self.teacher is not None:
            teacher = located(self.teacher, "--teacher")
            check_same_tokens(model.folder.shape, teacher.folder.shape, "--teacher")
            inputs["teacher"] = given_model(teacher)
        config = self._with_tasks()
        check_tasks(config, "--tasks ")
        check_chat(config, has_chat_template(model.folder.path), self.model)
        inputs |= given_data(config)
        if self.beside is not None:
            inputs["beside"] = finished(Path(self.beside), "--beside", EvaluateConfig.kind)
        self.do(config, inputs, console)

    def _with_tasks(self) -> EvaluateConfig:
        """The options with the tasks of `--tasks`."""
        tasks = {}
        for task in self.tasks:
            name, _, data = task.partition("=")
            tasks[name] = {"data": data or None, "limit": self.limit}
        return parse_named(EvaluateConfig, {**self.config.model_dump(), "tasks": tasks}, flag_of, "prunus evaluate")

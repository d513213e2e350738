"""The command `distill`: distil a teacher into a student."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from prunus.cli.base import HUB, Flat, Single, Text, conversations_of, finished, flag_of, located
from prunus.config import parse_named
from prunus.console import Console
from prunus.errors import RecipeError
from prunus.graph.records import read_record
from prunus.graph.steps import Given, Step, given_model
from prunus.models.folder import has_chat_template
from prunus.models.locate import Located
from prunus.steps.distill.config import DistillConfig
from prunus.steps.distill.plan import check_quantise, check_validation, given_validation
from prunus.steps.generate.config import GenerateConfig


@dataclass(kw_only=True)
class Distill(Single):
    """Distil a teacher into a student, on your text or on text that the teacher generated."""

    student: Annotated[Positional[str], arg(metavar="STUDENT")]
    """Folder of the student."""
    teacher: str
    """The teacher: folder, id on the hub, or GGUF file."""
    corpus: tuple[str, ...] = ()
    """Text files (.jsonl, .json, .csv, .parquet, .txt), datasets on the hub, `builtin:python` or `builtin:world`."""
    column: str = "text"
    """Column that holds the text."""
    rows: Literal["text", "chat"] = "text"
    """What a row holds: `text`, or a conversation (`chat`), which is rendered by the student's chat template."""
    append_eos: bool = True
    """End each document with the end-of-sequence token."""
    generated: str | None = None
    """Folder written by `prunus generate`, instead of --corpus. Implies --data teacher."""
    held_out: tuple[str, ...] = ()
    """Text to measure on during training (`--validation.times`), in the same formats as --corpus."""
    tasks: tuple[str, ...] = ()
    """Tasks to answer during training: NAME=DATA, a file of conversations with checks; or the name of a skill, for
    conversations of `builtin:world`."""
    config: Annotated[DistillConfig, Flat]

    def __call__(self, console: Console) -> None:
        """Run the step."""
        if not self.config.tokens:
            raise RecipeError("--tokens: 0 would not train the student; give at least one step's tokens")
        if bool(self.corpus) == bool(self.generated):
            raise RecipeError(
                "--corpus or --generated: give exactly one: text, or a folder written by `prunus generate`"
            )
        if self.corpus and self.config.data == "teacher":
            raise RecipeError("--data: teacher needs --generated, a folder written by `prunus generate`")
        if self.config.targets == "cached":
            raise RecipeError(
                "--targets: cached works in recipes only, where a step stores the targets first; allowed here: online"
            )
        if bool(self.held_out) != bool(self.config.validation.times):
            raise RecipeError("--held-out and --validation.times: give both, or neither")
        student, teacher = located(self.student, "STUDENT"), located(self.teacher, "--teacher")
        check_quantise(self.config, student.folder.config, student.folder.shape, "--quantise")
        config, stream = self._with_tasks(), self._stream(student, teacher, console)
        if self.generated is not None:
            config = config.model_copy(update={"data": "teacher"})
        inputs: dict[str, Step | Given] = {
            "student": given_model(student),
            "teacher": given_model(teacher),
            "tokens": stream,
        }
        if self.held_out:
            check_validation(config, self.runtime, has_chat_template(student.folder.path), "distill", HUB)
            inputs |= given_validation(config, self._text(self.held_out).stream(student, "held_out", self.out), HUB)
        self.do(config, inputs, console)

    def _with_tasks(self) -> DistillConfig:
        """The options with the tasks of `--tasks`."""
        validation = {**self.config.validation.model_dump(), "tasks": conversations_of(self.tasks)}
        raw = {**self.config.model_dump(), "validation": validation}
        if not self.tasks:
            return self.config
        return parse_named(
            DistillConfig, raw, lambda path: flag_of([key for key in path if key != "validation"]), "prunus distill"
        )

    def _text(self, paths: tuple[str, ...]) -> Text:
        """Text of the given format."""
        return Text(corpus=paths, column=self.column, rows=self.rows, append_eos=self.append_eos)

    def _stream(self, student: Located, teacher: Located, console: Console) -> Step | Given:
        """The stream to train on: the tokenised text, or the text that the teacher generated."""
        if self.generated is None:
            return self._text(self.corpus).stream(student, "corpus", self.out)
        written = finished(Path(self.generated), "--generated", GenerateConfig.kind)
        record = read_record(Path(self.generated)) or {}
        if record.get("inputs", {}).get("model") != given_model(teacher).fingerprint:
            console.warn(f"--generated: {self.generated} was written by another model than {self.teacher}")
        return written

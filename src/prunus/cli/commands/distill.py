"""The command `distill`: distil a teacher into a student."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from prunus.cli.base import Flat, Single, Text, finished, located
from prunus.console import Console
from prunus.errors import RecipeError
from prunus.graph.records import read_record
from prunus.graph.steps import Given, Step, given_model
from prunus.models.locate import Located
from prunus.steps.distill.config import DistillConfig
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
        student, teacher = located(self.student, "STUDENT"), located(self.teacher, "--teacher")
        config, stream = self.config, self._stream(student, teacher, console)
        if self.generated is not None:
            config = config.model_copy(update={"data": "teacher"})
        inputs: dict[str, Step | Given] = {
            "student": given_model(student),
            "teacher": given_model(teacher),
            "tokens": stream,
        }
        self.do(config, inputs, console)

    def _stream(self, student: Located, teacher: Located, console: Console) -> Step | Given:
        """The stream to train on: the tokenised text, or the text that the teacher generated."""
        if self.generated is None:
            text = Text(corpus=self.corpus, column=self.column, rows=self.rows, append_eos=self.append_eos)
            return text.stream(student, "corpus", self.out)
        written = finished(Path(self.generated), "--generated", GenerateConfig.kind)
        record = read_record(Path(self.generated)) or {}
        if record.get("inputs", {}).get("model") != given_model(teacher).fingerprint:
            console.warn(f"--generated: {self.generated} was written by another model than {self.teacher}")
        return written

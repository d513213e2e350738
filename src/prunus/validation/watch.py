"""Validation during training: a Trainer callback that measures the student and records a curve."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, TrainerControl, TrainerState, TrainingArguments

from prunus import distributed
from prunus.console import Console, human
from prunus.files import replace_text
from prunus.models.load import device_of, inference_dtype
from prunus.runtime import Runtime
from prunus.training.record import Watcher, whole_lines
from prunus.validation.config import ValidationConfig
from prunus.validation.data import ValidationData
from prunus.validation.measure import figures

FILE = "validation.jsonl"
_SHOWN = {"kl": ("KL", "{:.3f}"), "nll": ("NLL", "{:.3f}"), "repetition": ("repetition", "{:.0%}")}


class Validation(Watcher):
    """Measures the student before the first step and at the steps of `config.steps`, and writes `validation.jsonl`.

    Every process measures everything, since sampling and sums do not depend on their number; the first writes.

    Args:
        config: The options.
        data: What to measure on.
        student: The trained model, on its device.
        teacher: Its teacher if it runs here and has the same tokens; measured once.
        tokenizer: The student's tokenizer.
        runtime: Device, precision, and in `device_batch_size` the number of windows or prompts at a time.
        out: The step's folder.
        tokens_per_step: Tokens of one optimiser step.
        console: Shows the figures.
        shipped: A context in which the student's weights are those that it will have in use.
    """

    def __init__(
        self,
        config: ValidationConfig,
        data: ValidationData,
        student: PreTrainedModel,
        teacher: PreTrainedModel | None,
        tokenizer: Any,
        runtime: Runtime,
        out: Path,
        tokens_per_step: int,
        console: Console,
        shipped: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        super().__init__()
        self.config, self.data, self.tokenizer = config, data, tokenizer
        self.student, self.teacher = student, teacher
        self.dtype = inference_dtype(runtime, device_of(runtime))
        self.batch_size = runtime.device_batch_size
        self.file, self.tokens_per_step, self.console = out / FILE, tokens_per_step, console
        self.shipped = shipped
        self.lines: list[dict[str, Any]] = []

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Continue the record of an interrupted training, or measure both models before the first step."""
        if self.file.is_file():
            self.lines = [line for line in whole_lines(self.file) if line["step"] <= state.global_step]
        distributed.wait()  # until all have read what the first replaces
        self._write()
        if self.teacher is not None and not any(line["model"] == "teacher" for line in self.lines):
            self._measure("teacher", 0)
        if not any(line["model"] == "student" for line in self.lines):
            self._measure("student", state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Measure the student if it is time."""
        if state.global_step in self.config.steps(state.max_steps):
            self._measure("student", state.global_step)

    def _measure(self, name: str, step: int) -> None:
        """Measure one of the models, and add a line to the record."""
        start = time.monotonic()
        model, teacher = (self.student, self.teacher) if name == "student" else (self.teacher, None)
        assert model is not None  # the teacher is measured only if there is one
        with self.shipped() if name == "student" else nullcontext(), _evaluating(model, self.dtype):
            found = figures(model, teacher, self.data, self.config, self.tokenizer, self.batch_size)
        seconds = time.monotonic() - start
        self.spent += seconds
        line = {"model": name, "step": step, "tokens": step * self.tokens_per_step, "seconds": round(seconds, 2)}
        self.lines.append({**line, **found})
        self._write()
        self.console.say(f"validation, {name} after {human(step * self.tokens_per_step)} tokens: {summary(found)}")

    def _write(self) -> None:
        """Replace the file; only the first process does."""
        if distributed.rank() == 0:
            replace_text(self.file, "".join(json.dumps(line, allow_nan=False) + "\n" for line in self.lines))


def summary(found: dict[str, Any]) -> str:
    """The figures of a measurement in one line."""
    parts = [f"{label} {form.format(found[name])}" for name, (label, form) in _SHOWN.items() if name in found]
    for task, scores in found.get("tasks", {}).items():
        parts.append(f"{task} " + ", ".join(f"{name} {value:.0%}" for name, value in scores.items()))
    return "  ·  ".join(parts)


@contextmanager
def _evaluating(model: PreTrainedModel, dtype: torch.dtype) -> Iterator[None]:
    """The model in evaluation mode, with products in `dtype`."""
    was_training = model.training
    model.eval()
    mixed = torch.autocast(model.device.type, dtype) if dtype is not torch.float32 else nullcontext()
    try:
        with mixed:
            yield
    finally:
        model.train(was_training)

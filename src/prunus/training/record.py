"""What is kept of a training run while it goes: metrics by step, and checkpoints that are whole or do not count."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from prunus import processes
from prunus.console import Progress
from prunus.errors import ArtifactError, TrainingError
from prunus.runtime import Runtime

_SHOWN_APART = ("loss", "learning_rate", "grad_norm", "epoch")
_COMPLETE = "complete"  # a file in a checkpoint that says that all of it was written


def last_checkpoint(folder: Path, owner: str) -> str | None:
    """The newest checkpoint that was written to its end, or None. What a kill left half-written is passed over.

    Args:
        folder: Where checkpoints are.
        owner: A digest of the options that they must come from.

    Raises:
        ArtifactError: It comes from others.
    """
    complete = [path.parent for path in folder.glob(f"checkpoint-*/{_COMPLETE}")]
    if not complete:
        return None
    newest = max(complete, key=lambda path: int(path.name.rsplit("-", 1)[1]))
    if (newest / _COMPLETE).read_text() != owner:
        raise ArtifactError(f"{newest}: is a checkpoint of training with other options; remove {folder} to start anew")
    return str(newest)


class Recorder(TrainerCallback):
    """Writes `metrics.jsonl`, moves the live line and asks for checkpoints by the clock.

    Args:
        file: `metrics.jsonl`; lines of steps after the checkpoint that a run resumes from are dropped.
        tokens_per_step: Tokens of one optimiser step.
        progress: The live line.
        runtime: Says how many minutes lie between checkpoints.
        owner: A digest of the options, which checkpoints are marked with.
    """

    def __init__(self, file: Path, tokens_per_step: int, progress: Progress, runtime: Runtime, owner: str) -> None:
        self.owner = owner
        self.file, self.tokens_per_step, self.progress = file, tokens_per_step, progress
        self.interval = runtime.checkpoint_minutes * 60
        self.saved = self.started = time.monotonic()
        self.first_step = 0
        self.lines: list[dict[str, Any]] = []

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Take up the record where the checkpoint left it."""
        if self.file.is_file():
            lines = [json.loads(line) for line in self.file.read_text().splitlines() if line.endswith("}")]
            self.lines = [line for line in lines if line["step"] <= state.global_step]
        self._write("".join(json.dumps(line) + "\n" for line in self.lines), "w")
        self.saved = self.started = time.monotonic()
        self.first_step = state.global_step
        self.progress.update(state.global_step * self.tokens_per_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Move the line, and save if it is time."""
        self.progress.update(state.global_step * self.tokens_per_step)
        due = time.monotonic() - self.saved >= self.interval
        if processes.agree(due) and state.global_step < state.max_steps:
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Mark the checkpoint as whole; of several processes the first does, when all have written."""
        processes.wait()
        if processes.rank() == 0:
            (Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / _COMPLETE).write_text(self.owner)
        self.saved = time.monotonic()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Keep a line."""
        if not logs or "loss" not in logs:
            return
        loss = float(logs["loss"])
        norm = logs.get("grad_norm")
        for name, value in (("loss", loss), ("gradient's norm", norm)):
            if value is not None and not math.isfinite(value):
                raise TrainingError(
                    f"the {name} is {value} at step {state.global_step}; the last good checkpoint is kept"
                )
        seconds = time.monotonic() - self.started
        done = (state.global_step - self.first_step) * self.tokens_per_step
        line = {
            "step": state.global_step,
            "tokens": state.global_step * self.tokens_per_step,
            "loss": loss,
            **{name: value for name, value in logs.items() if name not in _SHOWN_APART and _has_value(value)},
            "learning_rate": logs.get("learning_rate"),
            "grad_norm": norm,
            "tokens_per_second": round(done / seconds, 1),
        }
        self.lines.append(line)
        self._write(json.dumps(line, allow_nan=False) + "\n", "a")
        self.progress.update(state.global_step * self.tokens_per_step, loss=loss)

    def _write(self, text: str, mode: str) -> None:
        """Write into the file; of several processes the first does."""
        if processes.rank() == 0:
            with self.file.open(mode) as file:
                file.write(text)

    def summary(self) -> dict[str, float]:
        """The last logged loss, the tokens, and this session's tokens per second."""
        last = self.lines[-1]
        return {key: last[key] for key in ("loss", "tokens", "tokens_per_second")}


def _has_value(value: Any) -> bool:
    """Whether JSON can say it; trackers' figures of what did not happen are NaN."""
    return not isinstance(value, float) or math.isfinite(value)

"""The record of a training run: metrics by step, and checkpoints that are complete or ignored."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from prunus import distributed
from prunus.console import Progress
from prunus.errors import ArtifactError, TrainingError
from prunus.files import read_text, replace_text, sync
from prunus.runtime import Runtime

_SHOWN_APART = ("loss", "learning_rate", "grad_norm", "epoch")
_SYNC_SECONDS = 1.0  # checkpoints in quicker succession are not all flushed to the disk
_COMPLETE = "complete"  # a file in a checkpoint that is written last


def last_checkpoint(folder: Path, owner: str) -> str | None:
    """The newest complete checkpoint, or None. One that a kill left incomplete is ignored.

    Args:
        folder: The folder of the checkpoints.
        owner: A digest of the options that they must come from.

    Raises:
        ArtifactError: It comes from training with other options.
    """
    complete = [path.parent for path in folder.glob(f"checkpoint-*/{_COMPLETE}")]
    if not complete:
        return None
    newest = max(complete, key=_number)
    if read_text(newest / _COMPLETE, ArtifactError) != owner:
        raise ArtifactError(f"{newest}: is a checkpoint of training with other options; remove {folder} to start anew")
    return str(newest)


def _number(checkpoint: Path) -> int:
    """The step of a checkpoint."""
    return int(checkpoint.name.rsplit("-", 1)[1])


def keep_only(*kept: Path) -> None:
    """Remove all checkpoints except these complete ones. Each one's mark of completeness is removed first.

    Transformers' own rotation goes by the times of files, and happens before the new checkpoint is complete, so that
    incomplete checkpoints and a clock that was set back would count.
    """
    for other in kept[0].parent.glob("checkpoint-*"):
        if other not in kept:
            (other / _COMPLETE).unlink(missing_ok=True)
            shutil.rmtree(other, ignore_errors=True)


def train_on(trainer: Trainer, recorder: Recorder, checkpoint: str | None) -> None:
    """Train from a checkpoint to the end; of a checkpoint of the last step, only the weights are loaded."""
    if checkpoint is not None and _number(Path(checkpoint)) == trainer.args.max_steps:
        trainer._load_from_checkpoint(checkpoint)
        recorder.resume(trainer.args.max_steps)
    else:
        trainer.train(resume_from_checkpoint=checkpoint)


def whole_lines(file: Path) -> list[dict[str, Any]]:
    """The lines of a JSONL file, without an incomplete last one."""
    text = file.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].split("\n") if line]


class Watcher(TrainerCallback):
    """A callback of the Trainer whose own work does not count as training.

    Attributes:
        spent: Seconds of its work in this session.
    """

    def __init__(self) -> None:
        self.spent = 0.0


class Recorder(TrainerCallback):
    """Writes `metrics.jsonl`, updates the live line and requests checkpoints by the clock.

    Args:
        file: `metrics.jsonl`; lines of steps after the checkpoint that a run resumes from are dropped.
        tokens_per_step: Tokens of one optimiser step.
        progress: The live line.
        runtime: Its `checkpoint_minutes` is the time between checkpoints.
        owner: A digest of the options, with which checkpoints are marked.
        watchers: Other callbacks, whose time is not the training's.
    """

    def __init__(
        self,
        file: Path,
        tokens_per_step: int,
        progress: Progress,
        runtime: Runtime,
        owner: str,
        watchers: Sequence[Watcher] = (),
    ) -> None:
        self.owner, self.watchers = owner, watchers
        self.file, self.tokens_per_step, self.progress = file, tokens_per_step, progress
        self.interval = runtime.checkpoint_minutes * 60
        self.saved = self.started = time.monotonic()
        self.synced: tuple[float, Path] | None = None  # time and folder of the last checkpoint that was flushed
        self.first_step = 0
        self.lines: list[dict[str, Any]] = []

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """See `resume`."""
        self.resume(state.global_step)

    def resume(self, step: int) -> None:
        """Continue the record from the checkpoint of a step, and drop later lines."""
        if self.file.is_file():
            self.lines = [line for line in whole_lines(self.file) if line["step"] <= step]
        if distributed.rank() == 0:
            replace_text(self.file, "".join(json.dumps(line) + "\n" for line in self.lines))
        distributed.wait()  # until all have read what the first replaces
        self.saved = self.started = time.monotonic()
        self.first_step = step
        self.progress.update(step * self.tokens_per_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Update the live line, and request a checkpoint if one is due, and always after the last step."""
        self.progress.update(state.global_step * self.tokens_per_step)
        due = time.monotonic() - self.saved >= self.interval
        if state.global_step == state.max_steps or distributed.of_first(due):
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Mark the checkpoint as complete and remove older ones: in the first process, when all have written."""
        distributed.wait()
        if distributed.rank() == 0:
            checkpoint = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            now, last = time.monotonic(), state.global_step == state.max_steps
            if self.synced is None or last or now - self.synced[0] >= _SYNC_SECONDS:
                for file in checkpoint.rglob("*"):
                    sync(file)
                self.synced = now, checkpoint
            replace_text(checkpoint / _COMPLETE, self.owner)
            keep_only(checkpoint, self.synced[1])
        self.saved = time.monotonic()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Write a line of metrics."""
        if not logs or "loss" not in logs:
            return
        loss = float(logs["loss"])
        norm = logs.get("grad_norm")
        for name, value in (("loss", loss), ("gradient's norm", norm)):
            if value is not None and not math.isfinite(value):
                raise TrainingError(
                    f"the {name} is {value} at step {state.global_step}; the last good checkpoint is kept"
                )
        seconds = time.monotonic() - self.started - sum(watcher.spent for watcher in self.watchers)
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
        """Write into the file; only the first process does."""
        if distributed.rank() == 0:
            with self.file.open(mode, encoding="utf-8") as file:
                file.write(text)

    def summary(self) -> dict[str, float]:
        """The last logged loss, the tokens, and this session's tokens per second."""
        last = self.lines[-1]
        return {key: last[key] for key in ("loss", "tokens", "tokens_per_second")}


def _has_value(value: Any) -> bool:
    """Whether JSON can represent a value; some trackers report NaN for missing figures."""
    return not isinstance(value, float) or math.isfinite(value)

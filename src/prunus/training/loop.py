"""Training through transformers' Trainer: the loop, the optimiser and the checkpoints are its, the loss is ours."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.integrations import TensorBoardCallback
from transformers.trainer_callback import PrinterCallback
from transformers.utils import WEIGHTS_NAME

from prunus.console import Console
from prunus.data.tokens import Tokens
from prunus.errors import TrainingError
from prunus.models.load import device_of, inference_dtype
from prunus.runtime import Runtime
from prunus.training.config import TrainingConfig
from prunus.training.objectives import Objective
from prunus.training.optimizers import MuonWithAdamW
from prunus.training.record import Recorder, last_checkpoint
from prunus.training.sequences import Sequences

CHECKPOINTS = "checkpoints"
_LOGGED = 200  # points of a loss curve


class ObjectiveTrainer(Trainer):
    """Transformers' Trainer for a module whose forward is the loss."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model_accepts_loss_kwargs = False  # an objective's losses are already weighted so that their mean is right
        self.figures: dict[str, list[torch.Tensor]] = {}
        self.portions: list[tuple[torch.Tensor, torch.Tensor]] = []  # of this step: which sequences, and their loss

    def compute_loss(self, model: Any, inputs: dict[str, torch.Tensor], *_: Any, **__: Any) -> torch.Tensor:
        """The objective on one portion of a batch."""
        numbers = inputs.pop("numbers")
        loss: torch.Tensor = model(**inputs, progress=self.state.global_step / self.state.max_steps)
        self.portions.append((numbers, loss.detach()))
        for name, figure in self.model.figures.items():
            self.figures.setdefault(name, []).append(figure)
        return loss

    def check_portions(self) -> None:
        """Refuse a step whose loss is not finite; once a step, since asking waits for the device.

        Raises:
            TrainingError: Says where.
        """
        losses = torch.stack([loss for _, loss in self.portions]).tolist()
        for portion, (loss, (numbers, _)) in enumerate(zip(losses, self.portions, strict=True), start=1):
            if not math.isfinite(loss):
                raise TrainingError(
                    f"the loss is {loss} at step {self.state.global_step + 1}, in portion {portion} of {len(losses)}: "
                    f"sequences {numbers.tolist()} of the text; the step is not taken, and the last good checkpoint is "
                    "kept. A lower learning_rate or a longer warmup_steps is the usual cure"
                )
        self.portions.clear()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what the objective saw since the last line, as means over this process's portions."""
        if "loss" in logs:
            logs |= {name: torch.stack(seen).mean().item() for name, seen in self.figures.items()}
            self.figures.clear()
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Save the module; transformers' own way stumbles over tied weights of what is no model of its own."""
        if self.args.should_save:
            folder = Path(str(output_dir))
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(self.model.state_dict() if state_dict is None else state_dict, folder / WEIGHTS_NAME)


class _Guard(TrainerCallback):
    """Has the losses of a step checked before the step is taken."""

    def __init__(self, trainer: ObjectiveTrainer) -> None:
        self.trainer = trainer

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """See `check_portions`."""
        self.trainer.check_portions()


def train(
    objective: Objective,
    tokens: Tokens,
    config: TrainingConfig,
    out: Path,
    runtime: Runtime,
    console: Console,
    label: str,
    watchers: Sequence[TrainerCallback] = (),
) -> dict[str, float]:
    """Train the model of `objective` in place, from the last complete checkpoint under `out` if there is one.

    Args:
        objective: The loss, and the model in float32 on the runtime's device; see `training_dtype` for the arithmetic.
        tokens: The stream to train on, in blocks of `config.sequence_length`.
        config: The options.
        out: Gets `metrics.jsonl`, and `checkpoints/` for as long as training lasts.
        runtime: Device, portions, trackers, time between checkpoints.
        console: Shows the progress.
        label: What to call it there.
        watchers: Callbacks of transformers that look on.

    Returns:
        The loss over the last logged steps, the tokens trained on, and the tokens per second of this session.

    Raises:
        DataError: The stream does not fill one sequence.
        TrainingError: The loss is not finite.
    """
    arguments = _arguments(config, out / CHECKPOINTS, runtime)
    with console.progress(label, config.steps * config.batch_size * config.sequence_length, "tokens") as progress:
        recorder = Recorder(out / "metrics.jsonl", config.batch_size * config.sequence_length, progress, runtime)
        trainer = ObjectiveTrainer(
            model=objective,
            args=arguments,
            train_dataset=Sequences(tokens, config),
            data_collator=_collate,
            callbacks=[recorder, *watchers, *_tensorboard(runtime, out)],
            optimizers=(MuonWithAdamW(objective, config) if config.optimizer == "muon" else None, None),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(_Guard(trainer))
        trainer.train(resume_from_checkpoint=last_checkpoint(out / CHECKPOINTS))
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    objective.model.eval()
    return recorder.summary()


def _collate(items: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.stack([item[name] for item in items])) for name in items[0]}


def _tensorboard(runtime: Runtime, out: Path) -> list[TensorBoardCallback]:
    """TensorBoard's events beside the metrics; by default they would lie with the checkpoints and go with them."""
    if "tensorboard" not in runtime.trackers:
        return []
    from torch.utils.tensorboard import SummaryWriter

    return [TensorBoardCallback(SummaryWriter(str(out / "tensorboard")))]


def _arguments(config: TrainingConfig, folder: Path, runtime: Runtime) -> TrainingArguments:
    device = device_of(runtime)
    portion = max(n for n in range(1, runtime.device_batch_size + 1) if config.batch_size % n == 0)
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=config.steps,
        per_device_train_batch_size=portion,
        gradient_accumulation_steps=config.batch_size // portion,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr": config.min_learning_rate},
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        adam_beta1=config.adam_beta1,
        adam_beta2=config.adam_beta2,
        max_grad_norm=config.max_grad_norm,
        seed=config.seed,
        train_sampling_strategy="sequential",  # the order is already in the dataset
        bf16=device.type == "cuda" and inference_dtype(runtime, device) is torch.bfloat16,
        use_cpu=device.type == "cpu",
        dataloader_num_workers=runtime.workers,
        dataloader_pin_memory=device.type == "cuda",
        logging_steps=max(1, config.steps // _LOGGED),
        logging_nan_inf_filter=False,  # a loss that is not finite must be seen
        save_strategy="no",  # the recorder asks for checkpoints by the clock
        save_total_limit=2,
        report_to=[tracker for tracker in runtime.trackers if tracker != "tensorboard"] or "none",
        disable_tqdm=True,
        remove_unused_columns=False,
    )

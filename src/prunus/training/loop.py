"""Training through transformers' Trainer: the loop, the optimiser and the checkpoints are its, the loss is ours."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.integrations import TensorBoardCallback
from transformers.trainer_callback import PrinterCallback

from prunus.console import Console
from prunus.data.tokens import Tokens, schedule
from prunus.models.load import device_of, inference_dtype
from prunus.runtime import Runtime
from prunus.training.config import TrainingConfig
from prunus.training.optimizers import MuonWithAdamW
from prunus.training.record import Recorder, last_checkpoint

Objective = Callable[[PreTrainedModel, torch.Tensor, float], torch.Tensor]
"""From a model, token ids [B, S] and how far training is, 0 to 1, to the loss to minimise: the mean over the tokens."""

CHECKPOINTS = "checkpoints"
_LOGGED = 200  # points of a loss curve


class _Blocks(Dataset[dict[str, np.ndarray]]):
    """The sequences of a whole run, in order. An item's number says which it is, so that resuming replays nothing."""

    def __init__(self, blocks: np.ndarray, order: np.ndarray) -> None:
        self.blocks, self.order = blocks, order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {"input_ids": self.blocks[self.order[index]].astype(np.int64)}


class ObjectiveTrainer(Trainer):
    """Transformers' Trainer with a loss given from outside."""

    def __init__(self, objective: Objective, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.objective = objective
        self.model_accepts_loss_kwargs = False  # every sequence has the same length, so a mean of means is the mean

    def compute_loss(self, model: Any, inputs: dict[str, torch.Tensor], *_: Any, **__: Any) -> torch.Tensor:
        """The objective on one portion of a batch."""
        return self.objective(model, inputs["input_ids"], self.state.global_step / self.state.max_steps)


def train(
    model: PreTrainedModel,
    objective: Objective,
    tokens: Tokens,
    config: TrainingConfig,
    out: Path,
    runtime: Runtime,
    console: Console,
    label: str,
    watchers: Sequence[TrainerCallback] = (),
) -> dict[str, float]:
    """Train `model` in place, from its last complete checkpoint under `out` if there is one.

    Args:
        model: In float32 on the runtime's device; on CUDA the arithmetic is bfloat16 under autocast.
        objective: The loss.
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
    blocks = tokens.blocks(config.sequence_length)
    order = schedule(len(blocks), config.steps * config.batch_size, config.seed)
    arguments = _arguments(config, out / CHECKPOINTS, runtime)
    with console.progress(label, config.steps * config.batch_size * config.sequence_length, "tokens") as progress:
        recorder = Recorder(out / "metrics.jsonl", config.batch_size * config.sequence_length, progress, runtime)
        trainer = ObjectiveTrainer(
            objective,
            model=model,
            args=arguments,
            train_dataset=_Blocks(blocks, order),
            data_collator=_collate,
            callbacks=[recorder, *watchers, *_tensorboard(runtime, out)],
            optimizers=(MuonWithAdamW(model, config) if config.optimizer == "muon" else None, None),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=last_checkpoint(out / CHECKPOINTS))
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    model.eval()
    return recorder.summary()


def _collate(items: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    return {"input_ids": torch.from_numpy(np.stack([item["input_ids"] for item in items]))}


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

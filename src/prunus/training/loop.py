"""Training with transformers' Trainer, which provides loop, optimiser and checkpoints; the loss is an `Objective`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.integrations import TensorBoardCallback
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME
from transformers.trainer_callback import PrinterCallback
from transformers.utils import WEIGHTS_NAME

from prunus import distributed
from prunus.checkpoints import FOLDER as CHECKPOINTS
from prunus.checkpoints import remove_checkpoints
from prunus.console import Console
from prunus.data.tokens import Tokens
from prunus.errors import TrainingError
from prunus.fingerprint import digest
from prunus.models.folder import ModelFolder, copy_along
from prunus.models.load import device_of, inference_dtype, load_model, save_model, saved_dtype
from prunus.runtime import Runtime
from prunus.training.config import OptimizerConfig, TrainingConfig
from prunus.training.deepspeed import check_shares, completed, read_settings
from prunus.training.lora import add_adapters, merge_adapters
from prunus.training.objectives import Objective
from prunus.training.optimizers import optimizer_of
from prunus.training.record import Recorder, Watcher, last_checkpoint, train_on
from prunus.training.sequences import Extra, Items, Sequences
from prunus.training.sharding import gathered, is_sharded, load_full, shard, shard_optimizer, trained_state

_LOGGED = 200  # points of a loss curve
_SKIPPED = (
    "the step is not taken, and the last good checkpoint is kept. Usually a lower learning_rate or a longer "
    "warmup_steps helps"
)


class ObjectiveTrainer(Trainer):
    """Transformers' Trainer for an `Objective`, whose `forward` returns the loss."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model_accepts_loss_kwargs = False  # an objective's losses are weighted already: their mean is the batch's
        self.figures: dict[str, list[torch.Tensor]] = {}
        self.micro_batches: list[tuple[torch.Tensor, torch.Tensor]] = []  # of this step: sequence numbers and loss

    def compute_loss(self, model: Any, inputs: dict[str, torch.Tensor], *_: Any, **__: Any) -> torch.Tensor:
        """The loss of one micro-batch."""
        numbers = inputs.pop("numbers")
        loss: torch.Tensor = model(**inputs, progress=self.state.global_step / self.state.max_steps)
        self.micro_batches.append((numbers, loss.detach()))
        if self.is_deepspeed_enabled:  # DeepSpeed takes the step within the backward pass
            self.check_losses()
        for name, figure in self.model.figures.items():
            self.figures.setdefault(name, []).append(figure)
        return loss

    def check_losses(self) -> None:
        """Refuse a step if its loss is not finite in any process. Called once per step, since it waits for the device.

        Raises:
            TrainingError: The message names step, micro-batch and sequences.
        """
        losses = torch.stack([loss for _, loss in self.micro_batches]).tolist()
        bad = next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), None)
        if not distributed.any_of(bad is not None):
            return
        where = f"the loss is not finite at step {self.state.global_step + 1}, in another process"
        if bad is not None:
            numbers = self.micro_batches[bad][0].tolist()
            where = (
                f"the loss is {losses[bad]} at step {self.state.global_step + 1}, in micro-batch {bad + 1} of "
                f"{len(losses)}: sequences {numbers} of the text"
            )
        raise TrainingError(f"{where}; {_SKIPPED}")

    def check_gradients(self) -> None:
        """Refuse a step whose gradient is not finite although its loss is; clipping would turn it into NaN.

        Raises:
            TrainingError: The message names the step.
        """
        norm = get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        whole = norm.full_tensor() if isinstance(norm, DTensor) else norm
        if distributed.any_of(not math.isfinite(whole.item())):
            raise TrainingError(f"the gradient is not finite at step {self.state.global_step + 1}; {_SKIPPED}")

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the objective's figures since the last line, as means over the micro-batches of all processes."""
        if "loss" in logs:
            means = {name: torch.stack(values).mean() / distributed.count() for name, values in self.figures.items()}
            distributed.all_reduce(means.values())
            logs |= {name: mean.item() for name, mean in means.items()}
            self.figures.clear()
        super().log(logs, start_time)

    @contextmanager
    def _defer_fsdp_gradient_reduction(self) -> Iterator[None]:
        """Reduce gradients after every micro-batch: full ones would take the memory that sharding saves."""
        yield

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Save the full state, even if it is sharded, so that any number of processes can resume.

        DeepSpeed's state has its own format. Nothing is saved after the last step.
        """
        if self.state.global_step == self.state.max_steps:
            return
        if self.is_deepspeed_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state = gathered(self.optimizer.state_dict())
        if self.args.should_save:
            torch.save(state, Path(output_dir) / OPTIMIZER_NAME)
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load the weights that `_save` wrote."""
        load_full(self.model, torch.load(Path(resume_from_checkpoint) / WEIGHTS_NAME, map_location="cpu"))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load what `_save_optimizer_and_scheduler` wrote."""
        if checkpoint is None:
            return
        if self.is_deepspeed_enabled:  # DeepSpeed has loaded the rest
            self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER_NAME))
            return
        self.optimizer.load_state_dict(torch.load(Path(checkpoint) / OPTIMIZER_NAME, map_location="cpu"))
        shard_optimizer(self.optimizer.optimizer)
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER_NAME))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Save what is trained; transformers' own method fails on tied weights of a module that is not its model."""
        whole = gathered(trained_state(self.model))
        if self.args.should_save:
            Path(str(output_dir)).mkdir(parents=True, exist_ok=True)
            torch.save(whole, Path(str(output_dir)) / WEIGHTS_NAME)


class _Guard(TrainerCallback):
    """Checks the losses and the gradient of a step before the optimizer takes it."""

    def __init__(self, trainer: ObjectiveTrainer) -> None:
        self.trainer = trainer

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """See `check_losses` and `check_gradients`."""
        self.trainer.check_losses()
        self.trainer.micro_batches.clear()
        self.trainer.check_gradients()


def train(
    objective: Objective,
    tokens: Tokens,
    config: TrainingConfig,
    out: Path,
    runtime: Runtime,
    console: Console,
    label: str,
    watchers: Sequence[Watcher] = (),
    extra: Extra | None = None,
) -> dict[str, float]:
    """Train the model of `objective` in place, from the last complete checkpoint under `out` if there is one.

    Args:
        objective: The loss, and the model in float32 on the runtime's device. Products are in `inference_dtype`.
        tokens: The stream to train on, in blocks of `config.sequence_length`.
        config: The options.
        out: Receives `metrics.jsonl`, and `checkpoints/`, which are kept until the step's result is recorded.
        runtime: Device, micro-batch, trackers, time between checkpoints.
        console: Shows the progress.
        label: The name of the progress line.
        watchers: Further callbacks of the Trainer.
        extra: Further inputs of the objective for each sequence.

    Returns:
        The loss over the last logged steps, the tokens trained on, and the tokens per second of this session.

    Raises:
        DataError: The stream does not fill one sequence.
        TrainingError: The loss is not finite, or `runtime.compile: true` fails.
        ArtifactError: There is a checkpoint of training with other options.
    """
    sequences = Sequences(tokens, config, extra)
    place(objective, runtime)
    return fit(objective, sequences, config, out, runtime, console, label, watchers)


def fit(
    objective: Objective,
    items: Items,
    config: OptimizerConfig,
    out: Path,
    runtime: Runtime,
    console: Console,
    label: str,
    watchers: Sequence[Watcher] = (),
) -> dict[str, float]:
    """Train the model of `objective` on `items`, after `place`.

    Arguments, result and errors are those of `train`.
    """
    settings = read_settings(runtime.deepspeed, config.optimizer) if runtime.deepspeed else None

    objective.compile_loss(items.steps * items.tokens_per_step // distributed.count(), runtime, console)
    dtype = inference_dtype(runtime, device_of(runtime))
    engine = None if settings is None else completed(settings, dtype is torch.bfloat16)
    arguments = _arguments(config, items, out / CHECKPOINTS, runtime, dtype, engine)
    with console.progress(label, items.steps * items.tokens_per_step, "tokens") as progress:
        owner = digest(config.identity())
        recorder = Recorder(out / "metrics.jsonl", items.tokens_per_step, progress, runtime, owner, watchers)
        trainer = ObjectiveTrainer(
            model=objective,
            args=arguments,
            train_dataset=items,
            data_collator=items.collate,
            callbacks=[recorder, *watchers, *_tensorboard(runtime, out)],
            optimizers=(optimizer_of(objective, config), None),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(_Guard(trainer))
        checkpoint = last_checkpoint(out / CHECKPOINTS, owner)
        check_shares(checkpoint)
        train_on(trainer, recorder, checkpoint)
    distributed.wait()
    if distributed.rank() == 0:
        remove_checkpoints(out)
    objective.model.eval()
    return recorder.summary()


def loading_device(runtime: Runtime) -> torch.device:
    """The device to load a model for training on: its device, or the CPU if it is sharded afterwards."""
    return torch.device("cpu") if distributed.shards_weights(runtime.shard) else device_of(runtime)


def load_to_train(folder: Path, config: OptimizerConfig, runtime: Runtime) -> PreTrainedModel:
    """Load a model whose weights are trained, in float32; or frozen, with trainable updates, if `config.lora` says so.

    Raises:
        ModelError: As `load_model` and `add_adapters`.
    """
    if not config.lora.r:
        return load_model(folder, loading_device(runtime), torch.float32)
    device = device_of(runtime)
    model = load_model(folder, device, inference_dtype(runtime, device))
    add_adapters(model, config.lora)
    return model


def save_trained(objective: Objective, config: OptimizerConfig, source: Path, out: Path) -> float:
    """Write the trained model to `out` in its original dtype, with the other files of its folder.

    All processes must call it; the first writes.

    Args:
        objective: The trained objective.
        config: The options that it was trained with.
        source: The folder that its model was loaded from.
        out: The folder to write.

    Returns:
        The largest difference between the logits of the model and of the reopened files; see `save_model`.

    Raises:
        ModelError: The reopened model gives other logits.
    """
    model = whole_model(objective, lambda: load_model(source, torch.device("cpu"), torch.float32))
    if model is None:
        return 0.0
    model = merge_adapters(model, out, config.lora.keep_adapter)
    difference = save_model(model, out, saved_dtype(ModelFolder(source)))
    copy_along(source, out)
    return difference


def whole_model(objective: Objective, begin: Callable[[], PreTrainedModel]) -> PreTrainedModel | None:
    """The trained model with full weights in the first process; None in the others. All processes must call it.

    Args:
        objective: The trained objective.
        begin: Loads the initial model, which receives the gathered weights if they are sharded.
    """
    if not is_sharded(objective):
        return objective.model if distributed.rank() == 0 else None
    weights = gathered(objective.state_dict())
    if distributed.rank():
        return None
    model = begin()
    load_full(model, {name.removeprefix("model."): value for name, value in weights.items()})
    return model


def place(objective: Objective, runtime: Runtime) -> None:
    """Move the objective to its device, or shard it across processes according to `runtime.shard`."""
    if runtime.gradient_checkpointing:
        objective.model.gradient_checkpointing_enable({"use_reentrant": False})
    modules = [objective, *objective.companions]
    if distributed.shards_weights(runtime.shard):
        for module in modules:
            shard(module, inference_dtype(runtime, device_of(runtime)))
        objective.is_distributed_loading_by_transformers = True  # the Trainer must not wrap it again
    else:
        for module in modules:
            module.to(device_of(runtime))


def _tensorboard(runtime: Runtime, out: Path) -> list[TensorBoardCallback]:
    """Write TensorBoard's events next to the metrics; the default folder is removed with the checkpoints."""
    if "tensorboard" not in runtime.trackers:
        return []
    from torch.utils.tensorboard import SummaryWriter

    return [TensorBoardCallback(SummaryWriter(str(out / "tensorboard")))]


def micro_batch_size(config: OptimizerConfig, runtime: Runtime) -> int:
    """Sequences per micro-batch: the largest divisor of a process's batch within `device_batch_size`."""
    share = config.batch_size // distributed.count()
    return max(n for n in range(1, runtime.device_batch_size + 1) if share % n == 0)


def _arguments(
    config: OptimizerConfig,
    items: Items,
    folder: Path,
    runtime: Runtime,
    dtype: torch.dtype,
    engine: dict[str, Any] | None,
) -> TrainingArguments:
    device, size = device_of(runtime), micro_batch_size(config, runtime)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=items.steps,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=config.batch_size // distributed.count() // size,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": config.min_rate_share},
        warmup_steps=items.warmup_steps,
        weight_decay=config.weight_decay,
        adam_beta1=config.adam_beta1,
        adam_beta2=config.adam_beta2,
        max_grad_norm=config.max_grad_norm,
        seed=config.seed,
        train_sampling_strategy="sequential",  # the order is already in the dataset
        bf16=dtype is torch.bfloat16,
        use_cpu=device.type == "cpu",
        deepspeed=engine,
        ddp_find_unused_parameters=False,  # an objective uses all parameters that it trains
        ddp_backend="gloo" if device.type == "cpu" and distributed.count() > 1 else None,
        dataloader_num_workers=runtime.workers,
        dataloader_pin_memory=device.type == "cuda",
        logging_steps=max(1, items.steps // _LOGGED),
        logging_nan_inf_filter=False,  # a loss that is not finite must be reported
        save_strategy="no",  # the recorder requests checkpoints by the clock
        save_total_limit=None,  # the recorder removes old ones when the new one is complete
        report_to=[tracker for tracker in runtime.trackers if tracker != "tensorboard"] or "none",
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    use_one_device(arguments, device)
    return arguments


def use_one_device(arguments: TrainingArguments, device: torch.device) -> None:
    """Make the Trainer use this process's device alone.

    In a single process, transformers takes `cuda:0`, and replicates the model to all further CUDA devices.
    """
    if device.type == "cuda" and distributed.count() == 1:
        if device.index is not None:
            torch.cuda.set_device(device)  # accelerate moves batches to the current device
        arguments._n_gpu = 1
        arguments.__dict__["_setup_devices"] = torch.device("cuda", torch.cuda.current_device())  # `arguments.device`

"""Training through transformers' Trainer: the loop, the optimiser and the checkpoints are its, the loss is ours."""

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
from prunus.training.deepspeed import check_shares, filled, read_settings
from prunus.training.objectives import Objective
from prunus.training.optimizers import MuonWithAdamW
from prunus.training.precision import training_dtype
from prunus.training.record import Recorder, last_checkpoint, train_on
from prunus.training.sequences import Extra, Items, Sequences
from prunus.training.sharding import gathered, is_sharded, load_whole, shard, share_out

_LOGGED = 200  # points of a loss curve
_NOT_TAKEN = (
    "the step is not taken, and the last good checkpoint is kept. A lower learning_rate or a longer warmup_steps is "
    "the usual cure"
)


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
        if self.is_deepspeed_enabled:  # which takes the step within the backward pass
            self.check_portions()
        for name, figure in self.model.figures.items():
            self.figures.setdefault(name, []).append(figure)
        return loss

    def check_portions(self) -> None:
        """Refuse a step whose loss is not finite in any process; once a step, since asking waits for the device.

        Raises:
            TrainingError: Says where.
        """
        losses = torch.stack([loss for _, loss in self.portions]).tolist()
        bad = next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), None)
        if not distributed.any_of(bad is not None):
            return
        where = f"the loss is not finite at step {self.state.global_step + 1}, in another process"
        if bad is not None:
            numbers = self.portions[bad][0].tolist()
            where = (
                f"the loss is {losses[bad]} at step {self.state.global_step + 1}, in portion {bad + 1} of "
                f"{len(losses)}: sequences {numbers} of the text"
            )
        raise TrainingError(f"{where}; {_NOT_TAKEN}")

    def check_gradients(self) -> None:
        """Refuse a step whose gradient is not finite, though its loss was; clipping leaves NaN of it.

        Raises:
            TrainingError: Says at which step.
        """
        norm = get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        whole = norm.full_tensor() if isinstance(norm, DTensor) else norm
        if distributed.any_of(not math.isfinite(whole.item())):
            raise TrainingError(f"the gradient is not finite at step {self.state.global_step + 1}; {_NOT_TAKEN}")

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what the objective saw since the last line, as means over all processes' portions."""
        if "loss" in logs:
            means = {name: torch.stack(seen).mean() / distributed.count() for name, seen in self.figures.items()}
            distributed.all_reduce(means.values())
            logs |= {name: mean.item() for name, mean in means.items()}
            self.figures.clear()
        super().log(logs, start_time)

    @contextmanager
    def _defer_fsdp_gradient_reduction(self) -> Iterator[None]:
        """Share out gradients after every portion: whole ones would take the memory that sharing saves."""
        yield

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Save them whole, whatever they are shared out over, so that any number of processes can go on.

        DeepSpeed's have a form of their own. After the last step nobody needs them.
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
        """Take up the weights that `_save` wrote."""
        load_whole(self.model, torch.load(Path(resume_from_checkpoint) / WEIGHTS_NAME, map_location="cpu"))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Take up what `_save_optimizer_and_scheduler` wrote."""
        if checkpoint is None:
            return
        if self.is_deepspeed_enabled:  # which has taken up the rest
            self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER_NAME))
            return
        self.optimizer.load_state_dict(torch.load(Path(checkpoint) / OPTIMIZER_NAME, map_location="cpu"))
        share_out(self.optimizer.optimizer)
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER_NAME))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Save the module whole; transformers' own way stumbles over tied weights of what is no model of its own."""
        whole = gathered(self.model.state_dict())
        if self.args.should_save:
            Path(str(output_dir)).mkdir(parents=True, exist_ok=True)
            torch.save(whole, Path(str(output_dir)) / WEIGHTS_NAME)


class _Guard(TrainerCallback):
    """Has the losses and the gradient of a step checked before the step is taken."""

    def __init__(self, trainer: ObjectiveTrainer) -> None:
        self.trainer = trainer

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """See `check_portions` and `check_gradients`."""
        self.trainer.check_portions()
        self.trainer.portions.clear()
        self.trainer.check_gradients()


def train(
    objective: Objective,
    tokens: Tokens,
    config: TrainingConfig,
    out: Path,
    runtime: Runtime,
    console: Console,
    label: str,
    watchers: Sequence[TrainerCallback] = (),
    extra: Extra | None = None,
) -> dict[str, float]:
    """Train the model of `objective` in place, from the last complete checkpoint under `out` if there is one.

    Args:
        objective: The loss, and the model in float32 on the runtime's device; see `training_dtype` for the arithmetic.
        tokens: The stream to train on, in blocks of `config.sequence_length`.
        config: The options.
        out: Gets `metrics.jsonl`, and `checkpoints/`, which stay until the step's result is recorded.
        runtime: Device, portions, trackers, time between checkpoints.
        console: Shows the progress.
        label: What to call it there.
        watchers: Callbacks of transformers that look on.
        extra: What more the objective is handed of each sequence.

    Returns:
        The loss over the last logged steps, the tokens trained on, and the tokens per second of this session.

    Raises:
        DataError: The stream does not fill one sequence.
        TrainingError: The loss is not finite, or cannot be compiled where that is asked for.
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
    watchers: Sequence[TrainerCallback] = (),
) -> dict[str, float]:
    """Train the model of `objective`, which `place` has put where it works, on `items`.

    Takes, returns and raises what `train` does.
    """
    settings = read_settings(runtime.deepspeed, config.optimizer) if runtime.deepspeed else None

    def portion() -> dict[str, torch.Tensor]:
        first = items.collate([items[i] for i in range(portion_of(config, runtime))])
        return {name: value for name, value in first.items() if name != "numbers"}

    objective.compile_loss(items.steps * items.tokens_per_step // distributed.count(), runtime, console)
    arithmetic = training_dtype(objective, portion, runtime, console)
    engine = None if settings is None else filled(settings, arithmetic is torch.bfloat16)
    arguments = _arguments(config, items, out / CHECKPOINTS, runtime, arithmetic, engine)
    with console.progress(label, items.steps * items.tokens_per_step, "tokens") as progress:
        owner = digest(config.identity())
        recorder = Recorder(out / "metrics.jsonl", items.tokens_per_step, progress, runtime, owner)
        trainer = ObjectiveTrainer(
            model=objective,
            args=arguments,
            train_dataset=items,
            data_collator=items.collate,
            callbacks=[recorder, *watchers, *_tensorboard(runtime, out)],
            optimizers=(MuonWithAdamW(objective, config) if config.optimizer == "muon" else None, None),
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
    """Where to load what is to be trained: its device, or the CPU where each process then takes a share to its own."""
    return torch.device("cpu") if distributed.shards_weights(runtime.shard) else device_of(runtime)


def save_trained(objective: Objective, source: Path, out: Path) -> float:
    """Write the trained model to `out` in the type that it came in, with the files beside its weights.

    All processes call it; the first writes.

    Args:
        objective: Trained.
        source: The folder that its model was loaded from.
        out: Where to.

    Returns:
        The largest difference of a logit to the model reopened; see `save_model`.

    Raises:
        ModelError: The reopened model does not say the same.
    """
    model = whole_model(objective, lambda: load_model(source, torch.device("cpu"), torch.float32))
    if model is None:
        return 0.0
    difference = save_model(model, out, saved_dtype(ModelFolder(source)))
    copy_along(source, out)
    return difference


def whole_model(objective: Objective, begin: Callable[[], PreTrainedModel]) -> PreTrainedModel | None:
    """The trained model with all of its weights, for the first process; None for the others. All call it.

    Args:
        objective: Trained.
        begin: Loads what training began with, to be filled where the weights are shared out.
    """
    if not is_sharded(objective):
        return objective.model if distributed.rank() == 0 else None
    weights = gathered(objective.state_dict())
    if distributed.rank():
        return None
    model = begin()
    load_whole(model, {name.removeprefix("model."): value for name, value in weights.items()})
    return model


def place(objective: Objective, runtime: Runtime) -> None:
    """Put everything where it is to work, shared out over the processes where that is asked for."""
    if runtime.gradient_checkpointing:
        objective.model.gradient_checkpointing_enable({"use_reentrant": False})
    modules = [objective, *objective.companions]
    if distributed.shards_weights(runtime.shard):
        for module in modules:
            shard(module, inference_dtype(runtime, device_of(runtime)))
        objective.is_distributed_loading_by_transformers = True  # the Trainer is not to wrap it once more
    else:
        for module in modules:
            module.to(device_of(runtime))


def _tensorboard(runtime: Runtime, out: Path) -> list[TensorBoardCallback]:
    """TensorBoard's events beside the metrics; by default they would lie with the checkpoints and go with them."""
    if "tensorboard" not in runtime.trackers:
        return []
    from torch.utils.tensorboard import SummaryWriter

    return [TensorBoardCallback(SummaryWriter(str(out / "tensorboard")))]


def portion_of(config: OptimizerConfig, runtime: Runtime) -> int:
    """How many sequences go through the model at a time."""
    share = config.batch_size // distributed.count()
    return max(n for n in range(1, runtime.device_batch_size + 1) if share % n == 0)


def _arguments(
    config: OptimizerConfig,
    items: Items,
    folder: Path,
    runtime: Runtime,
    arithmetic: torch.dtype,
    engine: dict[str, Any] | None,
) -> TrainingArguments:
    device, portion = device_of(runtime), portion_of(config, runtime)
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=items.steps,
        per_device_train_batch_size=portion,
        gradient_accumulation_steps=config.batch_size // distributed.count() // portion,
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
        bf16=arithmetic is torch.bfloat16,
        use_cpu=device.type == "cpu",
        deepspeed=engine,
        ddp_find_unused_parameters=False,  # an objective goes through all that it trains
        ddp_backend="gloo" if device.type == "cpu" and distributed.count() > 1 else None,
        dataloader_num_workers=runtime.workers,
        dataloader_pin_memory=device.type == "cuda",
        logging_steps=max(1, items.steps // _LOGGED),
        logging_nan_inf_filter=False,  # a loss that is not finite must be seen
        save_strategy="no",  # the recorder asks for checkpoints by the clock
        save_total_limit=None,  # the recorder removes old ones, when the new one is whole
        report_to=[tracker for tracker in runtime.trackers if tracker != "tensorboard"] or "none",
        disable_tqdm=True,
        remove_unused_columns=False,
    )

"""Online reinforcement learning by TRL's trainers: the model generates answers during training, which get rewards.

TRL provides the loop and the losses: GRPO (Shao et al. 2024, arXiv 2402.03300) and RLOO (Ahmadian et al. 2024, arXiv
2402.14740). Prompts, rewards, records and checkpoints are Prunus's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.trainer_callback import PrinterCallback

from prunus import distributed
from prunus.checkpoints import FOLDER as CHECKPOINTS
from prunus.checkpoints import remove_checkpoints
from prunus.console import Console
from prunus.data.chat import Conversation, conversations
from prunus.data.config import ChatSource
from prunus.errors import DataError
from prunus.fingerprint import digest
from prunus.inference.prompts import rendered
from prunus.models.load import device_of, inference_dtype, load_model
from prunus.models.pretrained import load_tokenizer
from prunus.runtime import Runtime
from prunus.steps.align.config import AlignConfig
from prunus.training.loop import use_one_device
from prunus.training.packed import count_steps
from prunus.training.record import Recorder, last_checkpoint, train_on
from prunus.verify.reward import reward

_LOGGED = 200  # points of a curve


def train_online(
    config: AlignConfig,
    model: Path,
    sources: tuple[ChatSource, ...],
    template: str | None,
    out: Path,
    runtime: Runtime,
    console: Console,
) -> tuple[PreTrainedModel, dict[str, float]]:
    """Train a model on its answers to the prompts of chat data, rewarded by each row's check.

    Args:
        config: The options; `write` controls generation.
        model: The folder to start from.
        sources: Rows with checks.
        template: The chat template; None for the tokenizer's.
        out: Folder for `metrics.jsonl` and `checkpoints/`; checkpoints are kept until the step's result is recorded.
        runtime: Device, micro-batch size, time between checkpoints.
        console: Where progress is printed.

    Returns:
        The trained model, and the last loss, the maximum number of generated tokens, and tokens per second.

    Raises:
        DataError: A row has no check, or there are fewer prompts than one step needs.
    """
    from datasets import Dataset

    tokenizer = load_tokenizer(model)
    prompts = _prompts(config, sources, tokenizer, template)
    rows = [row for row, _ in prompts]
    steps = count_steps(len(prompts), config.batch_size, config.epochs)
    per_step = config.batch_size * config.write.answers * config.write.max_new_tokens
    trained = load_model(model, device_of(runtime), torch.float32)
    texts = _without_bos([text for _, text in prompts], tokenizer)
    data = Dataset.from_list([{"prompt": text, "number": number} for number, text in enumerate(texts)])
    with console.progress(config.method, steps * per_step, "tokens") as progress:
        owner = digest(config.identity())
        recorder = Recorder(out / "metrics.jsonl", per_step, progress, runtime, owner)
        kind, arguments = _trainer(config, steps, out / CHECKPOINTS, runtime)
        trainer = kind(
            model=trained,
            reward_funcs=[_reward_function(rows)],
            args=arguments,
            train_dataset=data,
            processing_class=tokenizer,
            callbacks=[recorder],
        )
        trainer.remove_callback(PrinterCallback)
        train_on(trainer, recorder, last_checkpoint(out / CHECKPOINTS, owner))
    distributed.wait()
    if distributed.rank() == 0:
        remove_checkpoints(out)
    return trained.eval(), recorder.summary()


def _prompts(
    config: AlignConfig, sources: tuple[ChatSource, ...], tokenizer: Any, template: str | None
) -> list[tuple[Conversation, str]]:
    """Each row with its prompt as text; rows without room for an answer are skipped."""
    room = config.sequence_length - config.write.max_new_tokens
    found = []
    for number, source in enumerate(sources):
        for row in conversations(source, f"data.chat.{number}"):
            row.require("checks")
            text, ids = rendered(row.prompt_turns(), tokenizer, row.where, row.tools, template)
            if len(ids) <= room:
                found.append((row, text))
    if not found:
        raise DataError(f"align.write: no prompt left: all are longer than the {room} tokens available for a prompt")
    return found


def _without_bos(texts: list[str], tokenizer: Any) -> list[str]:
    """Prompts without the BOS token, if the tokenizer adds it by itself."""
    added = tokenizer("")["input_ids"]
    begins = bool(added) and added[0] == tokenizer.bos_token_id
    return [text.removeprefix(tokenizer.bos_token) if begins else text for text in texts]


def _reward_function(rows: list[Conversation]) -> Callable[..., list[float]]:
    """The rewards of answers, as a reward function for TRL."""

    def check(completions: list[str], number: list[int], **_: Any) -> list[float]:
        several = [(answer, rows[i]) for answer, i in zip(completions, number, strict=True)]
        return [reward(answer, row.check or {}, row.tools or (), row.where) for answer, row in several]

    return check


def _trainer(config: AlignConfig, steps: int, folder: Path, runtime: Runtime) -> tuple[Any, Any]:
    """TRL's trainer of the method, and its arguments."""
    import trl

    kind, arguments = {
        "grpo": (trl.GRPOTrainer, trl.GRPOConfig),
        "rloo": (trl.RLOOTrainer, trl.RLOOConfig),
    }[config.method]
    device = device_of(runtime)
    share = config.batch_size * config.write.answers // distributed.count()
    micro_batch = max(n for n in range(1, runtime.device_batch_size + 1) if share % n == 0)
    options = arguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=share // micro_batch,
        num_generations=config.write.answers,
        max_completion_length=config.write.max_new_tokens,
        temperature=config.write.temperature,
        top_p=config.write.top_p,
        beta=config.beta,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": config.min_rate_share},
        warmup_steps=int(config.warmup * steps),
        weight_decay=config.weight_decay,
        adam_beta1=config.adam_beta1,
        adam_beta2=config.adam_beta2,
        max_grad_norm=config.max_grad_norm,
        seed=config.seed,
        bf16=inference_dtype(runtime, device) is torch.bfloat16,
        use_cpu=device.type == "cpu",
        gradient_checkpointing=runtime.gradient_checkpointing,
        logging_steps=max(1, steps // _LOGGED),
        logging_nan_inf_filter=False,
        save_strategy="no",  # the recorder requests checkpoints by time
        save_total_limit=None,  # the recorder removes old ones after the new one is complete
        report_to=[tracker for tracker in runtime.trackers if tracker != "tensorboard"] or "none",
        disable_tqdm=True,
    )
    use_one_device(options, device)
    return kind, options

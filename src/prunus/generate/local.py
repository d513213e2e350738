"""Answers written here, by transformers.

B batch, P length of the prompts with their padding, T new tokens
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from prunus.generate.answers import Answer
from prunus.generate.config import GenerateConfig
from prunus.generate.prompts import Prompt
from prunus.generate.sample import Drawn, draws
from prunus.models.load import device_of, inference_dtype, load_model
from prunus.runtime import Runtime


def answers(
    batches: Iterable[list[Prompt]], config: GenerateConfig, folder: Path, tokenizer: Any, runtime: Runtime
) -> Iterator[tuple[int, Answer]]:
    """Answer batch by batch; each answer comes with its prompt's number.

    Raises:
        ModelError: The model cannot be loaded.
    """
    device = device_of(runtime)
    model = load_model(folder, device, inference_dtype(runtime, device)).requires_grad_(False)
    ends = end_tokens(model, tokenizer)
    model.generation_config = GenerationConfig(  # in place of the model's own taste in sampling
        do_sample=False, max_new_tokens=config.max_new_tokens, eos_token_id=ends or None, pad_token_id=0
    )
    for batch in batches:
        for prompt, ids in zip(batch, write(model, batch, config, set(ends)), strict=True):
            finish = "stop" if ids[-1] in ends else "length"
            yield prompt.number, Answer(ids, tokenizer.decode(ids, skip_special_tokens=True), finish)


def write(model: PreTrainedModel, batch: list[Prompt], config: GenerateConfig, ends: set[int]) -> list[list[int]]:
    """The ids that the model goes on with after each prompt, up to and including the first that ends it."""
    ids, real = padded([prompt.ids for prompt in batch])
    processors = []
    if config.temperature:
        chances = draws(config.seed, [prompt.number for prompt in batch], config.max_new_tokens).to(model.device)
        processors.append(Drawn(chances, ids.shape[1], config.temperature, config.top_p))
    with torch.no_grad():
        written = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=real.to(model.device),
            logits_processor=processors,
            use_cache=True,
        )
    return [_until_end(row, ends) for row in written[:, ids.shape[1] :].tolist()]


def padded(prompts: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts padded on the left, where the model is told not to look, and which tokens are real: [B, P] each."""
    length = max(map(len, prompts))
    ids = [[0] * (length - len(prompt)) + prompt for prompt in prompts]
    real = [[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids), torch.tensor(real)


def end_tokens(model: PreTrainedModel, tokenizer: Any) -> list[int]:
    """The tokens that end an answer: those the model names, and the tokenizer's own."""
    named = model.generation_config.eos_token_id
    ends = named if isinstance(named, list) else [named]
    return sorted({int(end) for end in (*ends, tokenizer.eos_token_id) if end is not None})


def _until_end(ids: list[int], ends: set[int]) -> list[int]:
    found = next((i for i, token in enumerate(ids) if token in ends), len(ids) - 1)
    return ids[: found + 1]

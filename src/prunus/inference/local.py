"""Answers written here, by transformers.

B batch, P length of the prompts with their padding, T new tokens
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from prunus.inference.answers import Answer
from prunus.inference.config import Writing
from prunus.inference.prompts import Prompt
from prunus.inference.sample import Drawn, draws
from prunus.models.finite import finite_logits


def answers(
    batches: Iterable[list[Prompt]], writing: Writing, model: PreTrainedModel, tokenizer: Any
) -> Iterator[tuple[int, Answer]]:
    """Answer batch by batch; each answer comes with its prompt's number."""
    ends = end_tokens(model, tokenizer)
    own = model.generation_config
    model.generation_config = GenerationConfig(  # in place of the model's own taste in sampling
        do_sample=False, max_new_tokens=writing.max_new_tokens, eos_token_id=ends or None, pad_token_id=0
    )
    try:
        for batch in batches:
            for prompt, ids in zip(batch, write(model, batch, writing, set(ends), tokenizer), strict=True):
                yield prompt.number, finished(ids, set(ends), writing.stop, tokenizer)
    finally:
        model.generation_config = own


def write(
    model: PreTrainedModel, batch: list[Prompt], writing: Writing, ends: set[int], tokenizer: Any
) -> list[list[int]]:
    """The ids that the model goes on with after each prompt, up to and including the first that ends it."""
    ids, real = padded([prompt.ids for prompt in batch])
    processors = []
    if writing.temperature:
        chances = draws(writing.seed, [prompt.number for prompt in batch], writing.max_new_tokens).to(model.device)
        processors.append(Drawn(chances, ids.shape[1], writing.temperature, writing.top_p))
    stopped = {"stop_strings": list(writing.stop), "tokenizer": tokenizer} if writing.stop else {}
    with torch.no_grad(), finite_logits(model, f"prompts for {writing.where}"):
        written = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=real.to(model.device),
            logits_processor=processors,
            use_cache=True,
            **stopped,
        )
    return [_until_end(row, ends) for row in written[:, ids.shape[1] :].tolist()]


def finished(ids: list[int], ends: set[int], stop: tuple[str, ...], tokenizer: Any) -> Answer:
    """An answer as it is kept: cut before the first of `stop`, its ids after the token that completes it."""
    text = tokenizer.decode(ids, skip_special_tokens=True)
    places = [place for word in stop if (place := text.find(word)) >= 0]
    if not places:
        return Answer(ids, text, "stop" if ids and ids[-1] in ends else "length")
    low, high = 1, len(ids)  # the fewest ids whose text holds one of them
    while low < high:
        middle = (low + high) // 2
        seen = tokenizer.decode(ids[:middle], skip_special_tokens=True)
        low, high = (low, middle) if any(word in seen for word in stop) else (middle + 1, high)
    return Answer(ids[:low], text[: min(places)], "stop")


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

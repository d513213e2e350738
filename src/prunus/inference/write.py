"""Answering many prompts, by whoever writes, so that no answer is ever asked for twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import PreTrainedModel

from prunus.console import Progress
from prunus.inference import local, server
from prunus.inference.answers import Kept
from prunus.inference.config import Writing
from prunus.inference.prompts import Prompt


def write_all(
    portions: list[list[Prompt]],
    writing: Writing,
    model: Callable[[], PreTrainedModel],
    tokenizer: Any,
    kept: Kept,
    progress: Progress,
) -> None:
    """Answer the prompts that have no answer yet.

    Args:
        portions: What transformers answers at once, as `prompts.batches` makes them; of several processes, one's share.
        writing: How, and by whom.
        model: Gives the model, where transformers writes and there is something left to write.
        tokenizer: The model's.
        kept: Where the answers are, and go.
        progress: Told how many there are.

    Raises:
        DataError: The server refuses a prompt.
        HubError: The server does not answer.
        ModelError: The model cannot be loaded.
    """
    todo = [left for batch in portions if (left := [prompt for prompt in batch if prompt.number not in kept])]
    if not todo:
        return
    if writing.server.url:
        answers = server.answers(todo, writing, tokenizer)
    else:
        answers = local.answers(todo, writing, model(), tokenizer)
    with kept.writing() as file:
        for number, answer in answers:
            kept.add(file, number, answer)
            progress.update(len(kept))

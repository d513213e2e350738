"""Answering many prompts, by whoever writes, so that no answer is ever asked for twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import PreTrainedModel

from prunus import processes
from prunus.console import Progress
from prunus.writing import local, server
from prunus.writing.answers import Kept
from prunus.writing.config import Writing
from prunus.writing.prompts import Prompt, batches


def write_all(
    prompts: list[Prompt],
    writing: Writing,
    model: Callable[[], PreTrainedModel],
    tokenizer: Any,
    batch_size: int,
    kept: Kept,
    progress: Progress,
) -> None:
    """Answer this process's share of the prompts that have no answer yet.

    Args:
        prompts: All of them; processes take their batches in turn.
        writing: How, and by whom.
        model: Gives the model, where transformers writes and there is something left to write.
        tokenizer: The model's.
        batch_size: Prompts answered at once by transformers.
        kept: Where the answers are, and go.
        progress: Told how many there are.

    Raises:
        DataError: The server refuses a prompt.
        HubError: The server does not answer.
        ModelError: The model cannot be loaded.
    """
    mine = batches(prompts, batch_size)[processes.rank() :: processes.count()]
    todo = [left for batch in mine if (left := [prompt for prompt in batch if prompt.number not in kept])]
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

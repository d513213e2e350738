"""Generating the answers to many prompts, by transformers or a server, each only once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import PreTrainedModel

from prunus.console import Progress
from prunus.inference import local, server
from prunus.inference.answers import AnswerStore
from prunus.inference.config import GenerationOptions
from prunus.inference.prompts import Prompt


def write_all(
    batches: list[list[Prompt]],
    options: GenerationOptions,
    model: Callable[[], PreTrainedModel],
    tokenizer: Any,
    store: AnswerStore,
    progress: Progress,
) -> None:
    """Generate the answers that are not in the store yet.

    Args:
        batches: The prompts in batches, as `prompts.batches` makes them; with several processes, this process's share.
        options: How they are generated.
        model: Loads the model; called only if transformers generates and prompts are left.
        tokenizer: The model's tokenizer.
        store: The answers so far; new ones are added.
        progress: Updated with the number of answers.

    Raises:
        DataError: The server refuses a prompt.
        HubError: The server does not answer.
        ModelError: The model cannot be loaded.
    """
    todo = [left for batch in batches if (left := [prompt for prompt in batch if prompt.number not in store])]
    if not todo:
        return
    if options.server.url:
        answers = server.answers(todo, options, tokenizer)
    else:
        answers = local.answers(todo, options, model(), tokenizer)
    with store.writing() as file:
        for number, answer in answers:
            store.add(file, number, answer)
            progress.update(len(store))

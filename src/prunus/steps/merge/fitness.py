"""Fitness of a merged model: the mean reward of its answers to conversations with checks, task by task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from prunus.data.chat import Conversation
from prunus.errors import DataError
from prunus.inference.config import GenerationOptions
from prunus.inference.local import answers
from prunus.inference.prompts import Prompt, batches, rendered
from prunus.models.load import load_model
from prunus.runtime import Runtime
from prunus.steps.merge.config import EvolveConfig
from prunus.verify.reward import reward


@dataclass
class Fitness:
    """Evaluates models.

    Attributes:
        tasks: Conversations by task, from `questions.read_tasks`.
        tokenizer: The tokenizer of all models.
        evolve: Number of conversations, and maximum length of answers.
        context: The models' maximum sequence length in tokens.
        device: Device to run on.
        dtype: Type of the weights.
        runtime: Micro-batch size.
    """

    tasks: dict[str, list[Conversation]]
    tokenizer: Any
    evolve: EvolveConfig
    context: int
    device: torch.device
    dtype: torch.dtype
    runtime: Runtime

    def of(self, folder: Path, part: int) -> dict[str, float]:
        """The mean reward of a model's greedy answers, by task; see `prunus.verify.reward`.

        Args:
            folder: The model's folder.
            part: 0 for the conversations of every trial, 1 for those of the finalists.

        Raises:
            DataError: A prompt leaves no room for an answer, or a check cannot be read.
            ModelError: The model cannot be loaded.
        """
        rows = [(name, row) for name, several in self.tasks.items() for row in self._part(several, part)]
        prompts = [self._prompt(number, row) for number, (_, row) in enumerate(rows)]
        model = load_model(folder, self.device, self.dtype).requires_grad_(False)
        writing = GenerationOptions(self.evolve.max_new_tokens, where="merge.evolve")
        rewards: dict[str, list[float]] = {name: [] for name in self.tasks}
        prompt_batches = batches(prompts, self.runtime.device_batch_size)
        for number, answer in answers(prompt_batches, writing, model, self.tokenizer):
            name, row = rows[number]
            rewards[name].append(reward(answer.text, row.check or {}, row.tools or (), row.where))
        return {name: sum(several) / len(several) for name, several in rewards.items()}

    def _part(self, rows: Sequence[Conversation], part: int) -> Sequence[Conversation]:
        return rows[part * self.evolve.items : (part + 1) * self.evolve.items]

    def _prompt(self, number: int, row: Conversation) -> Prompt:
        text, ids = rendered(row.prompt_turns(), self.tokenizer, row.where, row.tools)
        room = self.context - self.evolve.max_new_tokens
        if len(ids) > room:
            raise DataError(f"{row.where}: {len(ids)} tokens leave no room for an answer; allowed: {room}")
        return Prompt(number, ids, text)

"""What validation measures on: windows and openings of held-out text, and questions with checks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from prunus.data.chat import Conversation, checked
from prunus.data.config import ChatSource
from prunus.data.tokens import Tokens
from prunus.data.windows import Window, first_windows, openings
from prunus.errors import DataError
from prunus.inference.prompts import Prompt, rendered
from prunus.validation.config import ValidationConfig


@dataclass(frozen=True)
class Question:
    """A question as the model reads it.

    Attributes:
        row: The conversation with its check.
        greedy: The prompt of the greedy answer.
        sampled: The same prompt once per sampled answer, each with a number of its own.
    """

    row: Conversation
    greedy: Prompt
    sampled: list[Prompt]


@dataclass(frozen=True)
class ValidationData:
    """The same for every measurement of a training.

    Attributes:
        windows: Held-out text to predict.
        openings: Held-out text to continue.
        questions: The questions of each task.
    """

    windows: list[Window]
    openings: list[Prompt]
    questions: dict[str, list[Question]]

    @classmethod
    def read(
        cls,
        config: ValidationConfig,
        held_out: Tokens,
        sources: Mapping[str, ChatSource],
        tokenizer: Any,
        length: int,
        context: int,
    ) -> ValidationData:
        """Collect everything.

        Args:
            config: The options.
            held_out: The held-out stream.
            sources: The tasks' conversations.
            tokenizer: The student's tokenizer.
            length: Tokens per window.
            context: The student's maximum sequence length in tokens.

        Raises:
            DataError: The held-out text has no window or no opening, a row has no check, or a prompt leaves no room for
                an answer.
        """
        windows = first_windows(held_out, length, config.max_tokens) if config.max_tokens else []
        starts = openings(held_out, config.prompt_tokens, config.prompt_count)
        if not windows and config.max_tokens:
            raise DataError(f"validation.max_tokens: the held-out text has {len(held_out.ids)} tokens and no window")
        if not starts and config.prompt_count:
            raise DataError(
                f"validation.prompt_tokens: no held-out document is longer than 2 x {config.prompt_tokens} tokens; "
                "lower it, or set prompt_count: 0"
            )
        numbers = count()
        prompts = [Prompt(next(numbers), ids, tokenizer.decode(ids)) for ids in starts]
        room = context - config.max_new_tokens
        questions = {
            name: [_question(row, config, tokenizer, room, numbers) for row in rows]
            for name, rows in read_tasks(config, sources, "validation.tasks").items()
        }
        return cls(windows, prompts, questions)

    def prompts(self) -> list[Prompt]:
        """All prompts that are answered greedily."""
        return [*self.openings, *(one.greedy for several in self.questions.values() for one in several)]

    def sampled(self) -> list[Prompt]:
        """All prompts that are answered by sampling."""
        return [prompt for several in self.questions.values() for one in several for prompt in one.sampled]


def read_tasks(
    config: ValidationConfig, sources: Mapping[str, ChatSource], where: str
) -> dict[str, list[Conversation]]:
    """The conversations of each task.

    Raises:
        DataError: A source cannot be read, a row has no check, or there are too few rows.
        HubError: The hub does not provide a source.
    """
    return {name: checked(source, config.items, f"{where}.{name}") for name, source in sources.items()}


def _question(
    row: Conversation, config: ValidationConfig, tokenizer: Any, room: int, numbers: Iterator[int]
) -> Question:
    text, ids = rendered(row.prompt_turns(), tokenizer, row.where, row.tools)
    if len(ids) > room:
        raise DataError(f"{row.where}: {len(ids)} tokens leave no room for an answer; allowed: {room}")
    greedy, *sampled = (Prompt(next(numbers), ids, text) for _ in range(1 + config.samples))
    return Question(row, greedy, sampled)

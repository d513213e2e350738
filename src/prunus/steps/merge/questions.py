"""The conversations for fitness, and the check that the evaluation does not report them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from prunus.data.chat import Conversation, checked
from prunus.errors import RecipeError
from prunus.steps.merge.config import EvolveConfig


def read_tasks(evolve: EvolveConfig, where: str) -> dict[str, list[Conversation]]:
    """The conversations of each task: `items` for every trial, and as many for the finalists.

    Raises:
        RecipeError: There is no task.
        DataError: A source cannot be read, a row has no check, or there are too few rows.
        HubError: The hub does not provide a source.
    """
    if not evolve.tasks:
        raise RecipeError(f"{where}.tasks: missing; evolution needs tasks to measure fitness on")
    return {name: checked(source, 2 * evolve.items, f"{where}.tasks.{name}") for name, source in evolve.tasks.items()}


def check_not_reported(
    tasks: Mapping[str, Sequence[Conversation]], reported: Collection[str], evolve: EvolveConfig, where: str
) -> None:
    """Refuse conversations that are also in the evaluation.

    Args:
        tasks: The tasks for fitness, from `read_tasks`.
        reported: The `conversation_key` of every item of the evaluation.
        evolve: The options, which may allow this.
        where: The name of the option, for messages.

    Raises:
        RecipeError: Names the first row.
    """
    if evolve.i_am_tuning_on_the_test_set:
        return
    for name, rows in tasks.items():
        same = [row for row in rows if conversation_key(row.prompt_turns()) in reported]
        if same:
            raise RecipeError(
                f"{where}.tasks.{name}: {len(same)} of {len(rows)} conversations are also in `evaluate.tasks`, the "
                f"first is {same[0].where}; give others, or set i_am_tuning_on_the_test_set: true"
            )


def conversation_key(messages: Sequence[Mapping[str, Any]]) -> str:
    """A key that identifies a conversation: roles and contents, with white space normalised."""
    return json.dumps([[turn["role"], " ".join(str(turn.get("content") or "").split())] for turn in messages])

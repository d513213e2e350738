"""The conversations that evolution is fit for, and that they are none of those that are reported."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from typing import Any

from prunus.data.chat import Conversation, conversations
from prunus.data.config import ChatSource
from prunus.errors import DataError, RecipeError
from prunus.steps.merge.config import EvolveConfig


def read_tasks(evolve: EvolveConfig, where: str) -> dict[str, list[Conversation]]:
    """The conversations of each task: `items` for every trial, and as many for the finalists.

    Raises:
        RecipeError: There is no task.
        DataError: A source cannot be read, a row has no check, or there are too few.
        HubError: The hub does not give one.
    """
    if not evolve.tasks:
        raise RecipeError(f"{where}.tasks: missing; evolution needs something to be fit for")
    return {name: _rows(source, 2 * evolve.items, f"{where}.tasks.{name}") for name, source in evolve.tasks.items()}


def check_not_reported(
    tasks: Mapping[str, Sequence[Conversation]], reported: Collection[str], evolve: EvolveConfig, where: str
) -> None:
    """Refuse conversations that the evaluation asks too.

    Args:
        tasks: Of fitness, as `read_tasks` gives them.
        reported: The `asked` of every item that is reported.
        evolve: Whether that is allowed.
        where: The option's path, for messages.

    Raises:
        RecipeError: Names the first row.
    """
    if evolve.i_am_tuning_on_the_test_set:
        return
    for name, rows in tasks.items():
        same = [row for row in rows if asked(row.prompt_turns()) in reported]
        if same:
            raise RecipeError(
                f"{where}.tasks.{name}: {len(same)} of {len(rows)} conversations are also what `evaluate` asks, the "
                f"first of them {same[0].where}; give others, or say i_am_tuning_on_the_test_set: true"
            )


def asked(messages: Sequence[Mapping[str, Any]]) -> str:
    """What a conversation is told by: who says what, spaces apart."""
    return json.dumps([[turn["role"], " ".join(str(turn.get("content") or "").split())] for turn in messages])


def _rows(source: ChatSource, count: int, where: str) -> list[Conversation]:
    rows = list(islice(conversations(source, where), count))
    for row in rows:
        row.require("checks")
    if len(rows) < count:
        raise DataError(f"{where}: {source.path} holds {len(rows)} conversations, and {count} are asked (2 x items)")
    return rows

"""Prompts for the teacher: openings of the corpus's documents, or texts and conversations from files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from prunus.data.config import Source
from prunus.data.sources import entries
from prunus.data.tokens import Tokens
from prunus.environment import as_written
from prunus.errors import DataError
from prunus.inference.prompts import Prompt, Turns, no_template, rendered
from prunus.steps.generate.config import GenerateConfig

WHERE = "generate.prompts"
_PARTIAL = "\ufffd"  # how an incomplete character is decoded, whose last bytes are in the next token


def openings(tokens: Tokens, config: GenerateConfig, tokenizer: Any) -> list[Prompt]:
    """The first tokens of random documents; each ends with a complete character.

    Raises:
        DataError: No document is longer than a prompt.
    """
    lengths = tokens.ends - tokens.starts
    long = np.flatnonzero(lengths > config.prompt_tokens)
    if not len(long):
        raise DataError(
            f"generate.prompt_tokens: {config.prompt_tokens}, but no document of the corpus is longer than that; the "
            f"longest has {max(lengths)} tokens"
        )
    prompts: list[Prompt] = []
    for number in np.random.default_rng(config.seed).permutation(long)[: config.samples].tolist():
        ids = tokens.ids[tokens.starts[number] :][: config.prompt_tokens].tolist()
        while tokenizer.decode(ids).endswith(_PARTIAL) and len(ids) > 1:
            ids.pop()
        prompts.append(Prompt(len(prompts), ids, tokenizer.decode(ids), {"document": number}))
    return prompts


def read_prompts(
    sources: tuple[Source, ...], config: GenerateConfig, tokenizer: Any, room: int
) -> tuple[list[Prompt], int]:
    """The prompts from sources, as the model reads them.

    Args:
        sources: The sources.
        config: The options, with the number of prompts.
        tokenizer: The teacher's tokenizer, with its chat template.
        room: Maximum length of a prompt in tokens.

    Returns:
        The prompts, and the number of longer ones that were skipped.

    Raises:
        DataError: A source cannot be read or has no prompts, or the chat template refuses one.
    """
    prompts: list[Prompt] = []
    too_long = 0
    for source, row, asks, where in _in_turn(sources):
        text, ids = rendered(asks, tokenizer, where)
        if len(ids) <= room:
            prompts.append(Prompt(len(prompts), ids, text, {"file": as_written(source.path), "row": row}))
        else:
            too_long += 1
        if len(prompts) == config.samples:
            break
    if not prompts:
        raise DataError(
            f"{WHERE}: no prompt left: {too_long} are longer than the {room} tokens that answers leave room for"
        )
    return prompts, too_long


def check_prompts(source: Source, where: str, has_template: bool) -> None:
    """Read one prompt, so that a wrong path or column, or a missing chat template, is reported before any work.

    Raises:
        DataError: The source cannot be read, is empty, has no such column, or needs a missing chat template.
        HubError: The hub does not provide it.
    """
    _, first = next(conversations(source, where))
    if not isinstance(first, str) and not has_template:
        raise DataError(no_template(f"{where}.column: {source.column!r} of {source.path} holds conversations"))


def conversations(source: Source, where: str) -> Iterator[tuple[int, str | Turns]]:
    """Each non-empty row of a source, with its number from 1: a text, or turns without the final answer.

    Raises:
        DataError: A row is neither, or there are no rows.
    """
    has_rows = False
    for row, value in enumerate(entries(source, where), start=1):
        here = f"{where}: {source.path}, row {row}"
        if value is None or value == [] or (isinstance(value, str) and not value.strip()):
            continue
        if not isinstance(value, (str, list)):
            raise DataError(
                f"{here}: {source.column!r} holds {type(value).__name__}; expected text, or a list of {{role, content}}"
            )
        yield row, value if isinstance(value, str) else _until_the_answer(value, here)
        has_rows = True
    if not has_rows:
        raise DataError(f"{where}: {source.path} has no prompts in its column {source.column!r}")


def _until_the_answer(turns: list[Any], where: str) -> Turns:
    """The turns of a conversation without the final answer, and without null fields."""
    for turn in turns:
        if not isinstance(turn, dict) or not all(isinstance(turn.get(key), str) for key in ("role", "content")):
            kind = type(turn).__name__
            found = ", ".join(f"{k}: {type(v).__name__}" for k, v in turn.items()) if isinstance(turn, dict) else kind
            raise DataError(f"{where}: a turn is {{{found}}}; expected {{role: text, content: text}}")
    kept = list(turns)
    while kept and kept[-1]["role"] == "assistant":
        kept.pop()
    if not kept:
        raise DataError(f"{where}: no turn before the answer; expected a turn of the user")
    return [{key: value for key, value in turn.items() if value is not None} for turn in kept]


def _in_turn(sources: tuple[Source, ...]) -> Iterator[tuple[Source, int, str | Turns, str]]:
    """Rows of all sources, each time from the one furthest below its share; exhausted sources are skipped."""
    readers = [conversations(source, f"{WHERE}.{i}") for i, source in enumerate(sources)]
    taken = [0] * len(sources)
    left = list(range(len(sources)))
    while left:
        current = min(left, key=lambda i: taken[i] / (sources[i].weight or 1.0))
        row = next(readers[current], None)
        if row is None:
            left.remove(current)
            continue
        taken[current] += 1
        yield sources[current], *row, f"{WHERE}.{current}: {sources[current].path}, row {row[0]}"

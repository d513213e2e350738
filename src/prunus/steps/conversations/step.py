"""The `conversations` step: chat data as a stream of tokens; every row is checked.

A pair is two documents, the chosen one first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prunus.console import Console
from prunus.data.chat import Conversation, Turns, conversations, with_attributes
from prunus.data.config import ChatSource
from prunus.data.endings import EndCounter, ends_of
from prunus.data.judged import Judged
from prunus.data.stream import Stream
from prunus.data.template import Dialogue, Rendered, Template
from prunus.data.tokenizing import prefix_of
from prunus.data.tokens import IDS
from prunus.errors import DataError
from prunus.models.pretrained import load_tokenizer
from prunus.models.token_rows import rows_of
from prunus.runtime import Runtime
from prunus.steps.conversations.config import JUDGED, PAIRED, ConversationsConfig


@dataclass(frozen=True)
class Inputs:
    """The sources, and the folder with the tokenizer."""

    sources: tuple[ChatSource, ...]
    tokenizer: Path


def run(config: ConversationsConfig, inputs: Inputs, out: Path, runtime: Runtime, console: Console) -> dict[str, float]:
    """Read all rows into `out`, in order.

    Writes a stream as the `data` step does, with `answers.npy`; and for pairs and labels `judged.npz`.

    Returns:
        Documents, their tokens, the tokens of answers, and the number of dropped rows.

    Raises:
        DataError: A row cannot be used (names the row), or no answer ends with an end token.
        ModelError: There is no chat template.
    """
    tokenizer = load_tokenizer(inputs.tokenizer)
    ends = {end: str(tokenizer.convert_ids_to_tokens(end)) for end in ends_of(inputs.tokenizer, tokenizer)}
    template = Template(tokenizer, config.template, ends)
    row_rewards: list[tuple[float, ...]] = []
    unread: dict[str, dict[str, None]] = {}
    ended = EndCounter(ends)
    dropped = counted = 0
    with (out / IDS).open("wb") as file, console.progress("read", None, "tokens") as progress:
        stream = Stream(file, max(len(tokenizer), rows_of(inputs.tokenizer) or 0), prefix_of(tokenizer))
        for row, versions in rendered(config, inputs.sources, template):
            unread.setdefault(row.source, {}).update(dict.fromkeys(row.unread))
            if len(versions) > 1 and versions[0].ids == versions[1].ids:
                raise DataError(f"{row.where}: chosen and rejected are equal after rendering by the chat template")
            if not _fits(config, row, versions):
                dropped += 1
                continue
            for version in versions:
                stream.write(version.text, version.ids, version.answers)
                counted += version.answer_tokens
                for _, end in version.answers:
                    ended.add(version.ids[end - 1])
            row_rewards.append(rewards_of(config, row))
            progress.update(stream.tokens)
    if not row_rewards:
        raise DataError(
            f"conversations: none left: all {dropped} are longer than {config.sequence_length} tokens"
            if dropped
            else f"conversations: {', '.join(source.path for source in inputs.sources)} has no rows"
        )
    if dropped:
        console.warn(f"dropped {dropped} rows that are longer than sequence_length: {config.sequence_length} tokens")
    for source, names in unread.items():
        if names:
            console.say(f"{source}: unused columns: {', '.join(names)}")
    if (note := ended.check()) is not None:
        console.warn(note)
    if config.wanted in JUDGED:
        paired = config.wanted in PAIRED
        groups = np.repeat(np.arange(len(row_rewards)), 2 if paired else 1)
        Judged(groups, np.asarray(row_rewards).ravel(), config.wanted == "rewards", paired).save(out)
    return {**stream.finish(out), "answer_tokens": counted, "dropped": dropped}


def rendered(
    config: ConversationsConfig, sources: tuple[ChatSource, ...], template: Template
) -> Iterator[tuple[Conversation, list[Rendered]]]:
    """Each row with its conversation as tokens; a pair with both of its conversations."""
    rows: deque[Conversation] = deque()

    def dialogues() -> Iterator[Dialogue]:
        for number, source in enumerate(sources):
            for row in conversations(source, f"data.chat.{number}"):
                row.require(config.wanted)
                rows.append(row)
                for turns in versions_of(config, row):
                    yield Dialogue(row.where, turns, row.tools, row.prompt if config.wanted in JUDGED else 0)

    versions = template.render(dialogues())
    for first in versions:
        yield rows.popleft(), [first, next(versions)] if config.wanted in PAIRED else [first]


def versions_of(config: ConversationsConfig, row: Conversation) -> list[Turns]:
    """The conversation of a row; of a pair, both conversations."""
    if config.wanted in PAIRED:
        assert row.rejected is not None  # `require` ensures it
        return [row.messages, row.rejected]
    if config.wanted == "attributes":
        return [with_attributes(row.messages, row.attributes or {})]
    return [row.messages]


def rewards_of(config: ConversationsConfig, row: Conversation) -> tuple[float, ...]:
    """The rewards of a row's answers; see `Judged`."""
    if config.wanted in PAIRED:
        return row.rewards if config.wanted == "rewards" and row.rewards is not None else (1.0, 0.0)
    return (float(bool(row.desirable)),)


def _fits(config: ConversationsConfig, row: Conversation, versions: list[Rendered]) -> bool:
    """Whether a row is short enough.

    Raises:
        DataError: It is too long, and `longer` is `refuse`.
    """
    longest = max(len(version.ids) for version in versions)
    if longest > config.sequence_length and config.longer == "refuse":
        raise DataError(
            f"{row.where}: {longest} tokens are more than sequence_length: {config.sequence_length}; allowed: a "
            "larger sequence_length, up to the model's context, or `longer: drop`"
        )
    return longest <= config.sequence_length

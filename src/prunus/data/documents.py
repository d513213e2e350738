"""Documents of a source, as texts: those in its column; or of a source of conversations, each row's as JSON.

Everything that reads documents in general (the split by hash, mixtures, comparisons of two texts) sees texts. Only the
`data` step, which has the tokenizer and its chat template, renders conversations.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from prunus.data.chat import conversation, fills_in
from prunus.data.config import DataConfig, Source, TokensConfig
from prunus.data.sources import Reader
from prunus.data.template import Dialogue, read_template
from prunus.errors import DataError


class Conversations(Reader):
    """Reads a source of conversations; see `Reader`."""

    def documents(self) -> Iterator[str]:
        """Each row's conversation as JSON, for `dialogue_of`.

        Raises:
            DataError: As `prunus.data.chat.conversations`.
        """
        filled = fills_in(self.source)
        for row in self.each_row():
            where = f"{self.where}: {self.source.path}, row {self.number}"
            found = conversation(row, where, self.source.columns, filled)
            found.require("answers")
            yield json.dumps([found.messages, found.tools], ensure_ascii=False, default=str)


def reader_of(source: Source, where: str, state: dict[str, Any] | None = None) -> Reader:
    """The reader of a source of text or of conversations; arguments and errors as for `Reader`."""
    return (Conversations if source.rows == "chat" else Reader)(source, where, state)


def documents(source: Source, where: str) -> Iterator[str]:
    """Each document of `source`, in order.

    Args:
        source: The source.
        where: The source's name in the recipe, such as `data.corpus.0`, for messages.

    Raises:
        DataError: The source cannot be read, has no such column, or a row holds no conversation.
        HubError: It cannot be fetched from the hub.
    """
    return reader_of(source, where).documents()


def dialogue_of(document: str, source: Source) -> Dialogue:
    """The conversation in a document of `Conversations`; messages name the row by its first words."""
    turns, tools = json.loads(document)
    return Dialogue(f"{source.path}, the row that begins with {turns[0]['content']!r:.60}", turns, tools)


def tokens_config(data: DataConfig) -> TokensConfig:
    """The options by which a recipe's text becomes tokens.

    Raises:
        DataError: `data.template` cannot be read.
    """
    has_chat = any(source.rows == "chat" for source in (*data.corpus, *data.held_out))
    return TokensConfig(append_eos=data.append_eos, template=read_template(data.template) if has_chat else None)


def check_source(source: Source, where: str) -> None:
    """Read one document, so that a wrong path or column is reported before any work.

    Raises:
        DataError: The source cannot be read, is empty, has no such column, or its first row holds no conversation.
    """
    if next(documents(source, where), None) is None:
        raise DataError(f"{where}: {source.path} holds no text")

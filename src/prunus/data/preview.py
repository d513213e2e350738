"""The first row of a chat source as a model would read it, and the parts trained on; without tokenizer and torch.

The special tokens that a template uses are read from the folder's files, as transformers does for its tokenizers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from prunus.data.chat import Conversation, conversations, with_attributes
from prunus.data.config import ChatSource
from prunus.data.endings import named_ends
from prunus.data.rendering import Span, Texts, render
from prunus.data.template import Dialogue, Script
from prunus.errors import ModelError
from prunus.files import read_object, read_text

ROWS = 32  # rows that are searched for columns that nothing reads
SHOWN = 600  # the most characters shown of a row


@dataclass(frozen=True)
class Preview:
    """The preview of a source. Previews of the same rows in several places of a recipe are equal.

    Attributes:
        where: Its name in the recipe, such as `data.chat.0`.
        path: Its path.
        text: The first row rendered by the chat template; None if there is no tokenizer yet.
        learnt: The spans of it that are trained on, in characters.
        unread: The columns that nothing reads.
        ends: Whether the trained parts end with an end token; None if the end tokens are unknown.
    """

    where: str = field(compare=False)
    path: str
    text: str | None
    learnt: tuple[Span, ...]
    unread: tuple[str, ...]
    ends: bool | None = None

    @property
    def source(self) -> str:
        """Its name in the recipe and its path."""
        return f"{self.where}: {self.path}"

    def pieces(self) -> Iterator[tuple[str, bool]]:
        """The text in pieces, each with whether it is trained on; long pieces without their middle."""
        text, at = self.text or "", 0
        pieces = []
        for start, end in self.learnt:
            pieces += [(text[at:start], False), (text[start:end], True)]
            at = end
        pieces = [(piece, learnt) for piece, learnt in [*pieces, (text[at:], False)] if piece]
        half = max(20, SHOWN // (2 * max(len(pieces), 1))) if len(text) > SHOWN else SHOWN
        for piece, learnt in pieces:
            yield (piece if len(piece) <= 2 * half else f"{piece[:half]} [...] {piece[-half:]}"), learnt


@dataclass(frozen=True)
class Reader:
    """The template and tokens by which rows are rendered.

    Attributes:
        script: The template and its variables.
        ends: The tokens that end an answer.
    """

    script: Script
    ends: tuple[str, ...]

    @classmethod
    def of(cls, folder: Path, template: Texts | None) -> Reader | None:
        """Read from a model folder; None if its files lack a template or the tokens that it needs.

        Args:
            folder: A folder with tokenizer.json and tokenizer_config.json.
            template: Replaces the folder's template.

        Raises:
            ModelError: A file cannot be read.
        """
        files = [folder / name for name in ("special_tokens_map.json", "tokenizer_config.json")]
        config: dict[str, Any] = {}
        for file in files:
            config |= read_object(file, ModelError) if file.is_file() else {}
        tokens = {name: _token(value) for name, value in config.items() if name.endswith("_token")}
        variables = {name: token for name, token in tokens.items() if token}
        template = template or _own_template(folder, config)
        if not template or "eos_token" not in variables or not (folder / "tokenizer.json").is_file():
            return None
        added = read_object(folder / "tokenizer.json", ModelError).get("added_tokens") or []
        known = {
            token["id"]: token for token in added if isinstance(token, Mapping) and {"id", "content"} <= set(token)
        }
        specials = {str(token["content"]) for token in known.values() if token.get("special")}
        named = {str(known[end]["content"]) for end in named_ends(folder) if end in known}
        ends = tuple(sorted(named | {str(variables["eos_token"])}))
        return cls(Script(template, variables, (*sorted(specials | set(variables.values())), *ends)), ends)


def preview(source: ChatSource, where: str, reader: Reader | None, wanted: str, judged: bool) -> Preview | None:
    """Preview a source.

    Args:
        source: A local file or a built-in source; nothing is downloaded.
        where: Its name in the recipe, for messages.
        reader: The template and tokens, if they are known yet.
        wanted: The kind of data, as in `ConversationsConfig`; or `prompts` if the model generates the answers.
        judged: Whether only the last answer is trained on (pairs and labels).

    Returns:
        The preview; None for a source on the hub.

    Raises:
        DataError: A row has an unknown format, or the chat template cannot render it.
    """
    if not (source.path.startswith("builtin:") or Path(source.path).expanduser().is_file()):
        return None
    rows: list[Conversation] = list(islice(conversations(source, where), ROWS))
    unread = tuple(dict.fromkeys(name for row in rows for name in row.unread))
    if reader is None or not rows:
        return Preview(where, source.path, None, (), unread)
    row = rows[0]
    if wanted == "prompts":
        text, _ = render(
            reader.script.text, row.prompt_turns(), row.where, row.tools, reader.script.variables, ask=True
        )
        return Preview(where, source.path, text, (), unread)
    row.require("answers")
    turns = with_attributes(row.messages, row.attributes or {}) if wanted == "attributes" else row.messages
    text, spans = reader.script.shown(Dialogue(row.where, turns, row.tools, row.prompt if judged else 0))
    ends = any(text[start:end].rstrip().endswith(reader.ends) for start, end in spans)
    return Preview(where, source.path, text, tuple(spans), unread, ends)


def _own_template(folder: Path, config: Mapping[str, Any]) -> Texts | None:
    """The chat template, or templates by name, in a model folder."""
    file, more = folder / "chat_template.jinja", sorted((folder / "additional_chat_templates").glob("*.jinja"))
    templates = {"default": read_text(file, ModelError)} if file.is_file() else {}
    templates |= {one.stem: read_text(one, ModelError) for one in more}
    if templates:
        return templates
    template = config.get("chat_template")
    if isinstance(template, list):
        return {str(one["name"]): str(one["template"]) for one in template if isinstance(one, Mapping)}
    return template if isinstance(template, (str, dict)) else None


def _token(value: Any) -> str | None:
    """The text of a token, which may be inside an object with its properties."""
    content = value.get("content") if isinstance(value, Mapping) else value
    return content if isinstance(content, str) else None

"""The first row of a chat source as a model would read it, and what of it is learnt; without a tokenizer or torch.

The tokens that a template names are read off the folder's files, as transformers does when it loads the tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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

ROWS = 32  # that are looked through for columns that nothing reads
SHOWN = 600  # characters of a row


@dataclass(frozen=True)
class Preview:
    """What is seen of a source.

    Attributes:
        source: Its name in the recipe, and its path.
        text: The first row through the chat template; None where there is no tokenizer yet.
        learnt: The stretches of it that are learnt, in characters.
        unread: The columns that nothing reads.
        ends: Whether what is learnt ends with a token that ends an answer; None where nobody knows of one.
    """

    source: str
    text: str | None
    learnt: tuple[Span, ...]
    unread: tuple[str, ...]
    ends: bool | None = None

    def pieces(self) -> Iterator[tuple[str, bool]]:
        """The text in pieces, each with whether it is learnt; long ones without their middle."""
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
    """Whose tokens and template the rows are shown by.

    Attributes:
        script: The template, with what it knows.
        ends: The tokens that end an answer.
    """

    script: Script
    ends: tuple[str, ...]

    @classmethod
    def of(cls, folder: Path, template: Texts | None) -> Reader | None:
        """What a model's folder gives; None where its files do not name the tokens that a template needs.

        Args:
            folder: With tokenizer.json and tokenizer_config.json.
            template: In place of the folder's own.

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
    """Look at a source.

    Args:
        source: A local file, or what Prunus brings along; nothing is fetched.
        where: Its name in the recipe, for messages.
        reader: How rows are shown, if that is known yet.
        wanted: What is read of a row, as `ConversationsConfig` has it; or `prompts`, where the model answers itself.
        judged: Whether of a pair, or of an answer with a label, the last answer alone is learnt.

    Returns:
        What is seen; None of what is on the hub.

    Raises:
        DataError: A row is of no known form, or the chat template does not show it.
    """
    if not (source.path.startswith("builtin:") or Path(source.path).expanduser().is_file()):
        return None
    found: list[Conversation] = list(islice(conversations(source, where), ROWS))
    unread = tuple(dict.fromkeys(name for row in found for name in row.unread))
    if reader is None or not found:
        return Preview(f"{where}: {source.path}", None, (), unread)
    row = found[0]
    if wanted == "prompts":
        text, _ = render(reader.script.text, row.asks(), row.where, row.tools, reader.script.variables, ask=True)
        return Preview(f"{where}: {source.path}", text, (), unread)
    turns = with_attributes(row.messages, row.attributes or {}) if wanted == "attributes" else row.messages
    text, spans = reader.script.shown(Dialogue(row.where, turns, row.tools, row.prompt if judged else 0))
    ends = any(text[start:end].rstrip().endswith(reader.ends) for start, end in spans)
    return Preview(f"{where}: {source.path}", text, tuple(spans), unread, ends)


def _own_template(folder: Path, config: Mapping[str, Any]) -> Texts | None:
    """The chat template, or templates by name, of a model's folder."""
    file, more = folder / "chat_template.jinja", sorted((folder / "additional_chat_templates").glob("*.jinja"))
    found = {"default": read_text(file, ModelError)} if file.is_file() else {}
    found |= {one.stem: read_text(one, ModelError) for one in more}
    if found:
        return found
    template = config.get("chat_template")
    if isinstance(template, list):
        return {str(one["name"]): str(one["template"]) for one in template if isinstance(one, Mapping)}
    return template if isinstance(template, (str, dict)) else None


def _token(value: Any) -> str | None:
    """A token, which may stand in an object with what else is known of it."""
    content = value.get("content") if isinstance(value, Mapping) else value
    return content if isinstance(content, str) else None

"""Conversations as tokens, rendered by a chat template, with the spans of the assistant's tokens.

Templates may mark the assistant's text with `{% generation %}`; in others `prunus.data.spans` locates it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from prunus.data.rendering import Span, Texts, has_marks, named, render
from prunus.data.spans import SpanFinder
from prunus.data.turns import LEARNT, Turns
from prunus.errors import DataError, ModelError
from prunus.files import read_text

PLAIN = (
    "{{ bos_token or '' }}{% if tools %}{{ 'Functions: ' + (tools | tojson) + '\\n' }}{% endif %}"
    "{% for message in messages %}{{ message.role | capitalize }}:{% if message.role == 'assistant' %}"
    "{% generation %}{{ ' ' + message.content }}{% for call in message.tool_calls or [] %}"
    "{{ (call.function | tojson) }}{% endfor %}{{ eos_token or '\\n' }}{% endgeneration %}"
    "{% else %}{{ ' ' + message.content }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""`builtin:plain`, for models that have no template: roles as plain text, without tokens that a model might lack."""
_BATCH = 256  # conversations that are tokenised at once


@dataclass(frozen=True)
class Rendered:
    """A conversation as a model reads it.

    Attributes:
        text: Its text, special tokens included.
        ids: Its tokens.
        answers: The spans (start, end) of `ids` that are the assistant's.
    """

    text: str
    ids: list[int]
    answers: list[Span]

    @property
    def answer_tokens(self) -> int:
        """The number of the assistant's tokens."""
        return sum(end - start for start, end in self.answers)


@dataclass(frozen=True)
class Dialogue:
    """A conversation to be rendered.

    Attributes:
        where: Its name in messages.
        turns: The turns.
        tools: Functions that may be called.
        prompt: The number of first turns that are not trained on, even the assistant's.
    """

    where: str
    turns: Turns
    tools: Turns | None = None
    prompt: int = 0


@dataclass(frozen=True)
class Script:
    """A chat template and its variables: what is needed to render a conversation as text.

    Attributes:
        text: The template, or several by name.
        variables: The tokens that it may refer to, such as `eos_token`.
        specials: Special tokens, which are never text.
    """

    text: Texts
    variables: Mapping[str, Any]
    specials: tuple[str, ...]

    def shown(self, dialogue: Dialogue) -> tuple[str, list[Span]]:
        """Render a conversation: its text, and the spans in it that are trained on, in characters.

        Raises:
            DataError: The template refuses it or omits something, or a trained turn cannot be located.
        """
        turns, tools, where = dialogue.turns, dialogue.tools, dialogue.where

        def look(some: Turns, ask: bool, tools: Turns | None = tools) -> tuple[str, list[Span]]:
            return render(template, some, where, tools, self.variables, ask)

        template = named(self.text, tools, where)
        finder = SpanFinder(look, partial(look, tools=None), turns, where, self.specials)
        text, marks = look(turns, False)
        finder.check_shown(text, tools)
        answers = [number for number, turn in enumerate(turns) if turn["role"] == "assistant"]
        trained = [n for n in answers if n >= dialogue.prompt and turns[n].get(LEARNT, True)]
        if not has_marks(template):
            return text, finder.unmarked(text, trained)
        return text, marks if trained == answers else finder.marked(text, marks, trained)


class Template:
    """A tokenizer and the chat template that renders its conversations.

    Args:
        tokenizer: A fast tokenizer, since it must map tokens to characters.
        text: The template; the tokenizer's if not given.
        ends: The tokens that end an answer when the model generates.

    Raises:
        ModelError: There is no template, or the tokenizer is slow.
    """

    def __init__(self, tokenizer: Any, text: Texts | None = None, ends: Collection[int] = ()) -> None:
        self.tokenizer, self.ends = tokenizer, frozenset(ends)
        self.text: Texts = text or tokenizer.chat_template
        if not self.text:
            raise ModelError(
                "data.template: the model's tokenizer has no chat template; give a file with one, or `builtin:plain`"
            )
        if not tokenizer.is_fast:
            raise ModelError(
                f"{type(tokenizer).__name__}: a slow tokenizer does not map tokens to characters; expected a fast one"
            )
        specials = tuple(map(str, (*tokenizer.all_special_tokens, *tokenizer.convert_ids_to_tokens(sorted(ends)))))
        self.script = Script(self.text, tokenizer.special_tokens_map, specials)

    def render(self, dialogues: Iterable[Dialogue]) -> Iterator[Rendered]:
        """Render and tokenise conversations.

        Raises:
            DataError: As `Script.shown`, or nothing of the assistant's text is left.
        """
        dialogues = iter(dialogues)
        while batch := list(islice(dialogues, _BATCH)):
            texts, spans = zip(*map(self.script.shown, batch), strict=True)
            read = self.tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            for dialogue, text, span, ids, places in zip(
                batch, texts, spans, read["input_ids"], read["offset_mapping"], strict=True
            ):
                answers = [(start, self._one_end(ids, start, end)) for start, end in _stretches(places, span)]
                if not answers:
                    raise DataError(
                        f"{dialogue.where}: the chat template leaves no token of the assistant's text; "
                        "set another by data.template"
                    )
                yield Rendered(text, ids, answers)

    def _one_end(self, ids: list[int], start: int, end: int) -> int:
        """The end of an answer after the first of its trailing end tokens, if it has several."""
        kept, place = end, end
        while place > start and (ids[place - 1] in self.ends or not self.tokenizer.decode(ids[place - 1]).strip()):
            place -= 1
            kept = place + 1 if ids[place] in self.ends else kept
        return kept


def read_template(path: str | None) -> str | None:
    """The text of `data.template`; None for the model's template.

    Raises:
        DataError: It cannot be read.
    """
    if path is None:
        return None
    if path == "builtin:plain":
        return PLAIN
    try:
        return read_text(Path(path).expanduser(), DataError)
    except DataError as error:
        raise DataError(f"data.template: {error}; allowed: a file, or `builtin:plain`") from None


def _stretches(places: list[Span], spans: list[Span]) -> Iterator[Span]:
    """Convert spans of characters to spans of tokens, given the characters (start, end) of each token."""
    token = 0
    for start, end in spans:
        while token < len(places) and places[token][1] <= start:
            token += 1
        first = token
        while token < len(places) and places[token][0] < end:
            token += 1
        if token > first:
            yield first, token

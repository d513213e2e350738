"""Conversations as tokens: through a chat template, with what the assistant says told apart from the rest.

Which tokens are the assistant's is read off the template where it marks them with `{% generation %}`. Others are asked
three ways: what a conversation looks like before each answer, after it, and as a whole. Where each is the beginning of
the next, the answer is what lies between. Where it is not (a template that drops earlier reasoning, say), nobody can
tell, and the row is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from prunus.data.chat import Turns
from prunus.errors import DataError, ModelError

PLAIN = (
    "{{ bos_token or '' }}{% if tools %}{{ 'Functions: ' + (tools | tojson) + '\\n' }}{% endif %}"
    "{% for message in messages %}{{ message.role | capitalize }}:{% if message.role == 'assistant' %}"
    "{% generation %}{{ ' ' + message.content }}{% for call in message.tool_calls or [] %}"
    "{{ (call.function | tojson) }}{% endfor %}{{ eos_token or '\\n' }}{% endgeneration %}"
    "{% else %}{{ ' ' + message.content }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""`builtin:plain`, for models that have no template: roles as words, and no token that a model might lack."""
_TOGETHER = 256  # conversations that are tokenised together

Span = tuple[int, int]


@dataclass(frozen=True)
class Rendered:
    """A conversation as a model reads it.

    Attributes:
        text: With special tokens.
        ids: The same as tokens.
        answers: The stretches (start, end) of `ids` that the assistant said.
    """

    text: str
    ids: list[int]
    answers: list[Span]

    @property
    def counted(self) -> int:
        """How many tokens the assistant said."""
        return sum(end - start for start, end in self.answers)


@dataclass(frozen=True)
class Dialogue:
    """Turns to be rendered.

    Attributes:
        where: Which they are, for messages.
        turns: The turns.
        tools: Functions that may be called.
        prompt: How many of the first turns count for nothing, whoever's they are.
    """

    where: str
    turns: Turns
    tools: Turns | None = None
    prompt: int = 0


class Template:
    """A tokenizer and the chat template that it renders conversations by.

    Args:
        tokenizer: A fast one: it must tell which characters a token stands for.
        text: The template; the tokenizer's own if not given.

    Raises:
        ModelError: There is no template, or the tokenizer is slow.
    """

    def __init__(self, tokenizer: Any, text: str | None = None) -> None:
        self.tokenizer = tokenizer
        self.text = text or tokenizer.chat_template
        if not self.text:
            raise ModelError(
                "data.template: the model's tokenizer has no chat template; give a file with one, or `builtin:plain`"
            )
        if not tokenizer.is_fast:
            raise ModelError(f"{type(tokenizer).__name__}: a slow tokenizer does not say which characters a token is")

    @cached_property
    def marks(self) -> bool:
        """Whether the template itself marks what the assistant says."""
        return re.search(r"\{%-?\s*generation\s*-?%\}", str(self.text)) is not None

    def render(self, dialogues: Iterable[Dialogue]) -> Iterator[Rendered]:
        """Each conversation as tokens.

        Raises:
            DataError: The template refuses one, cannot tell what the assistant says in it, or leaves nothing of it.
        """
        dialogues = iter(dialogues)
        while batch := list(islice(dialogues, _TOGETHER)):
            texts, spans = zip(*map(self._marked, batch), strict=True)
            read = self.tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            for dialogue, text, span, ids, places in zip(
                batch, texts, spans, read["input_ids"], read["offset_mapping"], strict=True
            ):
                answers = list(_stretches(places, span))
                if not answers:
                    raise DataError(
                        f"{dialogue.where}: the chat template leaves no token of what the assistant says; "
                        "data.template gives another"
                    )
                yield Rendered(text, ids, answers)

    def _marked(self, dialogue: Dialogue) -> tuple[str, list[Span]]:
        """A conversation as text, and where in it the assistant speaks, in characters."""
        turns, tools, where = dialogue.turns, dialogue.tools, dialogue.where
        if self.marks:
            text, spans = self._by_marks(turns, tools, where)
            before = len(self._render(turns[: dialogue.prompt], tools, where)) if dialogue.prompt else 0
            return text, [(start, end) for start, end in spans if start >= before]
        text = self._render(turns, tools, where)
        spans = []
        for number, turn in enumerate(turns):
            if turn["role"] == "assistant" and number >= dialogue.prompt:
                start = self._beginning(turns[:number], tools, where, text, ask=True)
                last = all(later["role"] == "assistant" for later in turns[number + 1 :]) and number + 1 == len(turns)
                end = len(text) if last else self._beginning(turns[: number + 1], tools, where, text)
                spans.append((start, self._without_border(text, start, end)))
        return text, spans

    def _by_marks(self, turns: Turns, tools: Turns | None, where: str) -> tuple[str, list[Span]]:
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            texts, spans = render_jinja_template(
                conversations=[turns],
                tools=tools,
                chat_template=self.text,
                return_assistant_tokens_mask=True,
                **self.tokenizer.special_tokens_map,
            )
        except Exception as error:  # as below
            raise _refused(where, error) from None
        return texts[0], [(start, end) for start, end in spans[0]]

    def _beginning(self, turns: Turns, tools: Turns | None, where: str, text: str, ask: bool = False) -> int:
        """How far into `text` the first turns go."""
        beginning = self._render(turns, tools, where, ask)
        if not text.startswith(beginning):
            raise DataError(
                f"{where}: the chat template cannot tell what the assistant says: its first {len(turns)} turns alone "
                "look otherwise than within the whole. Give a template by data.template that has {% generation %} and "
                "{% endgeneration %} around what the assistant says"
            )
        return len(beginning)

    def _without_border(self, text: str, start: int, end: int) -> int:
        """The end of an answer without the blank that a template sets between turns, behind a token that ends one."""
        stripped = text[start:end].rstrip()
        ends = tuple(str(token) for token in self.tokenizer.all_special_tokens)
        return start + len(stripped) if ends and stripped.endswith(ends) else end

    def _render(self, turns: Turns, tools: Turns | None, where: str, ask: bool = False) -> str:
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    turns, tools=tools, chat_template=self.text, add_generation_prompt=ask, tokenize=False
                )
            )
        except Exception as error:  # templates are programs, and refuse in words of their own
            raise _refused(where, error) from None


def read_template(path: str | None) -> str | None:
    """The text of `data.template`; None for the model's own.

    Raises:
        DataError: It cannot be read.
    """
    if path is None:
        return None
    if path == "builtin:plain":
        return PLAIN
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"data.template: {path} cannot be read: {error}; a file, or `builtin:plain`") from None


def _refused(where: str, error: Exception) -> DataError:
    return DataError(f"{where}: the chat template refuses it: {error}")


def _stretches(places: list[Span], spans: list[Span]) -> Iterator[Span]:
    """The stretches of tokens that have a character in one of `spans`, from the characters of each token."""
    token = 0
    for start, end in spans:
        while token < len(places) and places[token][1] <= start:
            token += 1
        first = token
        while token < len(places) and places[token][0] < end:
            token += 1
        if token > first:
            yield first, token

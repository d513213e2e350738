"""Conversations as tokens: through a chat template, with what the assistant says told apart from the rest.

Which tokens are the assistant's is read off the template where it marks them with `{% generation %}`; in others
`prunus.data.spans` finds them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from prunus.data.rendering import Span, Texts, has_marks, named, render
from prunus.data.spans import Conversed
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
"""`builtin:plain`, for models that have no template: roles as words, and no token that a model might lack."""
_TOGETHER = 256  # conversations that are tokenised together


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


@dataclass(frozen=True)
class Script:
    """A chat template and what it knows: as much as shows a conversation as text.

    Attributes:
        text: The template, or several by name.
        variables: The tokens that it may name, such as `eos_token`.
        specials: Tokens that are never text.
    """

    text: Texts
    variables: Mapping[str, Any]
    specials: tuple[str, ...]

    def shown(self, dialogue: Dialogue) -> tuple[str, list[Span]]:
        """A conversation as text, and where in it is what is learnt, in characters.

        Raises:
            DataError: The template refuses it, leaves something out of it, or nobody can tell what is learnt.
        """
        turns, tools, where = dialogue.turns, dialogue.tools, dialogue.where
        one = partial(render, self.text, where=where, tools=tools, variables=self.variables)
        seen = Conversed(lambda some, ask: one(some, ask=ask), turns, where, self.specials)
        text, marks = one(turns)
        seen.check_shown(text, tools)
        answers = [number for number, turn in enumerate(turns) if turn["role"] == "assistant"]
        wanted = [n for n in answers if n >= dialogue.prompt and turns[n].get(LEARNT, True)]
        if not has_marks(named(self.text, tools, where)):
            return text, seen.unmarked(text, wanted)
        return text, marks if wanted == answers else seen.marked(text, marks, wanted)


class Template:
    """A tokenizer and the chat template that it renders conversations by.

    Args:
        tokenizer: A fast one: it must tell which characters a token stands for.
        text: The template; the tokenizer's own if not given.
        ends: The tokens that end an answer when the model writes one.

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
            raise ModelError(f"{type(tokenizer).__name__}: a slow tokenizer does not say which characters a token is")
        specials = tuple(map(str, (*tokenizer.all_special_tokens, *tokenizer.convert_ids_to_tokens(sorted(ends)))))
        self.script = Script(self.text, tokenizer.special_tokens_map, specials)

    def render(self, dialogues: Iterable[Dialogue]) -> Iterator[Rendered]:
        """Each conversation as tokens.

        Raises:
            DataError: The template refuses one, cannot tell what the assistant says in it, or leaves nothing of it.
        """
        dialogues = iter(dialogues)
        while batch := list(islice(dialogues, _TOGETHER)):
            texts, spans = zip(*map(self.script.shown, batch), strict=True)
            read = self.tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            for dialogue, text, span, ids, places in zip(
                batch, texts, spans, read["input_ids"], read["offset_mapping"], strict=True
            ):
                answers = [(start, self._one_end(ids, start, end)) for start, end in _stretches(places, span)]
                if not answers:
                    raise DataError(
                        f"{dialogue.where}: the chat template leaves no token of what the assistant says; "
                        "data.template gives another"
                    )
                yield Rendered(text, ids, answers)

    def _one_end(self, ids: list[int], start: int, end: int) -> int:
        """Where an answer is over: behind the first of several tokens at its end that each would end it."""
        kept, place = end, end
        while place > start and (ids[place - 1] in self.ends or not self.tokenizer.decode(ids[place - 1]).strip()):
            place -= 1
            kept = place + 1 if ids[place] in self.ends else kept
        return kept


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
        return read_text(Path(path).expanduser(), DataError)
    except DataError as error:
        raise DataError(f"data.template: {error}; allowed: a file, or `builtin:plain`") from None


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

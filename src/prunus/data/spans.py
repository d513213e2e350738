"""Locating the assistant's text in a rendered conversation without marks, by rendering variants of the conversation.

An answer begins where the rendered prompt before it ends, and ends where the conversation rendered up to and including
it ends. Some templates render an earlier part differently within the whole conversation (they drop earlier thoughts,
or end only the last turn with `eos_token`). Then the conversation is rendered again with that answer changed: the
difference shows where the answer is, and the text after it that both renderings share belongs to it. Conversations in
which an answer still cannot be located are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from prunus.data.rendering import Span
from prunus.data.turns import Turns
from prunus.errors import DataError

Look = Callable[[Turns, bool], tuple[str, list[Span]]]
"""Renders turns, with or without the generation prompt: the text, and the spans marked in it."""


_SURE = 24  # a text with this many characters does not occur in a template by chance
_OTHER = "set another by data.template"


@dataclass(frozen=True)
class SpanFinder:
    """Locates the assistant's turns in a rendered conversation.

    Attributes:
        look: Renders turns.
        look_without_tools: Renders turns without the functions that may be called.
        turns: The turns.
        where: The conversation's name in messages.
        specials: Special tokens, with which a template may end turns; they are never text.
    """

    look: Look
    look_without_tools: Look
    turns: Turns
    where: str
    specials: Sequence[str] = ()

    def marked(self, text: str, marks: list[Span], numbers: Sequence[int]) -> list[Span]:
        """The spans of `marks` that belong to the turns `numbers`: those that change when the turn does.

        Raises:
            DataError: The marks of a turn cannot be determined.
        """
        result: set[int] = set()
        for number in numbers:
            other, others = self.look(self._changed(number), False)
            if len(others) != len(marks):
                raise self._ambiguous(number)
            pairs = zip(marks, others, strict=True)
            same = [text[start:end] == other[begin:stop] for (start, end), (begin, stop) in pairs]
            result.update(i for i, is_same in enumerate(same) if not is_same)
        return [marks[i] for i in sorted(result)]

    def unmarked(self, text: str, numbers: Sequence[int]) -> list[Span]:
        """The spans in `text` of the assistant turns `numbers`.

        Raises:
            DataError: A turn cannot be located.
        """
        result = []
        for number in numbers:
            start = self._start(text, number)
            end = self._end(text, number)
            if not start <= end:
                raise self._ambiguous(number)
            result.append((start, self._without_border(text, start, end)))
        return result

    def check_shown(self, text: str, tools: Turns | None) -> None:
        """Refuse a conversation if the template leaves out something that answers depend on.

        Raises:
            DataError: A turn, a function call, or a function is not in `text`.
        """
        for number, turn in enumerate(self.turns):
            calls = turn.get("tool_calls")
            if (calls or not _surely_has(text, turn["content"])) and not self._depends_on(text, number):
                what = f"the call of {calls[-1]['function']['name']}" if calls else f"the {turn['role']}'s text"
                raise DataError(f"{self.where}: the chat template omits {what} in turn {number + 1}; {_OTHER}")
        if tools and self.look_without_tools(self.turns, False)[0] == text:
            names = ", ".join(str(tool["function"]["name"]) for tool in tools)
            raise DataError(f"{self.where}: the chat template omits the functions (tools: {names}); {_OTHER}")

    def _depends_on(self, text: str, number: int) -> bool:
        """Whether the rendered text changes when a turn does."""
        try:
            return self._text(self._changed(number)) != text
        except DataError:  # the template checks the turn's content
            return True

    def _start(self, text: str, number: int) -> int:
        turns = self.turns
        asking = self._text(turns[:number], ask=True)
        if text.startswith(asking):
            return len(asking)
        changed = self._changed(number)
        alone, plain = self._text(turns[: number + 1]), self._text(turns[:number])
        header = asking[_shared(asking, plain) :] or self._last_special(asking)
        before = _shared(text, self._text(changed))
        lead = alone[len(asking) : _shared(alone, self._text(changed[: number + 1]))]
        at = text.rfind(header, 0, before) if header and alone.startswith(asking) else -1
        start = at + len(header)
        if at < 0 or not lead.endswith(text[start:before]) or before == len(text):
            raise self._ambiguous(number)
        return start

    def _end(self, text: str, number: int) -> int:
        if number + 1 == len(self.turns):
            return len(text)
        alone = self._text(self.turns[: number + 1])
        if text.startswith(alone):
            return len(alone)
        changed = self._changed(number)
        behind, behind_alone = (
            _behind(one, self._text(other)) for one, other in ((text, changed), (alone, changed[: number + 1]))
        )
        if behind == text or behind_alone == alone:  # nothing changed: the answer is not rendered
            raise self._ambiguous(number)
        shared = behind[: _shared(behind, behind_alone)]
        if shared != behind_alone:  # the next turn may begin like the omitted end of this one
            shared = self._to_border(shared)
        return len(text) - len(behind) + len(shared)

    def _to_border(self, text: str) -> str:
        """The beginning of a text up to its last special token, or else to its last whitespace."""
        ends = [at + len(token) for token in self.specials if (at := text.rfind(token)) >= 0]
        ends = ends or [place + 1 for place, letter in enumerate(text) if letter.isspace()]
        return text[: max(ends, default=0)]

    def _last_special(self, text: str) -> str:
        """The special token that a text ends with, and whitespace after it."""
        ending = text.rstrip()
        tokens = [token for token in self.specials if token and ending.endswith(token)]
        return max(tokens, key=len, default="") + text[len(ending) :] if tokens else ""

    def _without_border(self, text: str, start: int, end: int) -> int:
        """The end of an answer, without the whitespace after its end token that a template sets between turns."""
        stripped = text[start:end].rstrip()
        ends = tuple(self.specials)
        return start + len(stripped) if ends and stripped.endswith(ends) else end

    def _text(self, turns: Turns, ask: bool = False) -> str:
        return self.look(turns, ask)[0]

    def _changed(self, number: int) -> Turns:
        """The turns, one of them with another text that shares neither its first nor its last character."""
        turn = self.turns[number]
        if turn.get("tool_calls"):
            *calls, last = turn["tool_calls"]
            function = last["function"]
            other: dict[str, Any] = {**last, "function": {**function, "name": _unlike(function["name"])}}
            turn = {**turn, "tool_calls": [*calls, other]}
        else:
            turn = {**turn, "content": _unlike(turn["content"])}
        return [*self.turns[:number], turn, *self.turns[number + 1 :]]

    def _ambiguous(self, number: int) -> DataError:
        return DataError(
            f"{self.where}: cannot locate the assistant's turn {number + 1} in the rendered conversation, since the "
            "chat template renders the text around it differently within the whole. Set data.template to a template "
            "with {% generation %} and {% endgeneration %} around the assistant's text"
        )


def _behind(text: str, other: str) -> str:
    """The longest common suffix of two texts."""
    return text[len(text) - _shared(text[::-1], other[::-1]) :]


def _shared(text: str, other: str) -> int:
    """The length of the longest common prefix of two texts."""
    low, high = 0, min(len(text), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if text[:middle] == other[:middle] else (low, middle - 1)
    return low


def _surely_has(text: str, content: str) -> bool:
    """Whether a text contains another that is too long to occur in it by chance."""
    content = content.strip()
    return len(content) >= _SURE and content in text


def _unlike(text: str) -> str:
    """A character that a text neither begins nor ends with."""
    text = text.strip()
    return next(letter for letter in "012" if not text.startswith(letter) and not text.endswith(letter))

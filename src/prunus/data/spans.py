"""Where in a rendered conversation the assistant speaks, found without marks: by looking at other conversations.

An answer begins where the prompt that asks for it ends. It ends where the conversation up to it, without what follows,
ends too. Where an earlier part looks otherwise within the whole (a template that drops earlier thoughts, or that ends
the last turn alone with `eos_token`), the same conversation with that answer changed shows where the answer is, and
what both have in common behind it belongs to it. What still cannot be told is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from prunus.data.rendering import Span
from prunus.data.turns import Turns
from prunus.errors import DataError

Look = Callable[[Turns, bool], tuple[str, list[Span]]]
"""Turns as text, whether or not with what asks for an answer behind them, and what is marked in it."""


@dataclass(frozen=True)
class Conversed:
    """A conversation and how it looks.

    Attributes:
        look: Renders turns.
        turns: The turns.
        where: Which they are, for messages.
        specials: Tokens that a template ends turns by, and that are never text.
    """

    look: Look
    turns: Turns
    where: str
    specials: Sequence[str] = ()

    def marked(self, text: str, marks: list[Span], wanted: Sequence[int]) -> list[Span]:
        """The stretches of `marks` that are of some turns: those that change when the turn does.

        Raises:
            DataError: They do not tell.
        """
        found: set[int] = set()
        for number in wanted:
            other, others = self.look(self._changed(number), False)
            if len(others) != len(marks):
                raise self._untold(number)
            pairs = zip(marks, others, strict=True)
            same = [text[start:end] == other[begin:stop] for (start, end), (begin, stop) in pairs]
            found.update(i for i, is_same in enumerate(same) if not is_same)
        return [marks[i] for i in sorted(found)]

    def unmarked(self, text: str, wanted: Sequence[int]) -> list[Span]:
        """Where in `text` some turns of the assistant stand.

        Raises:
            DataError: Nobody can tell.
        """
        found = []
        for number in wanted:
            start = self._start(text, number)
            end = self._end(text, number)
            if not start <= end:
                raise self._untold(number)
            found.append((start, self._without_border(text, start, end)))
        return found

    def check_shown(self, text: str, tools: Turns | None) -> None:
        """Refuse a conversation of which the template leaves something out that answers hang on.

        Raises:
            DataError: A turn of somebody else, a call of a function, or a function is not in `text`.
        """
        for number, turn in enumerate(self.turns):
            known = turn["role"] == "assistant" or _has(text, turn["content"])
            if not known and self._text(self._changed(number)) == text:
                raise DataError(
                    f"{self.where}: the chat template does not show turn {number + 1}, of the {turn['role']}; "
                    "data.template gives another"
                )
            for call in turn.get("tool_calls") or ():
                if not _has(text, call["function"]["name"]):
                    raise DataError(
                        f"{self.where}: the chat template does not show the call of {call['function']['name']} in turn "
                        f"{number + 1}; data.template gives another"
                    )
        for tool in tools or ():
            if not _has(text, tool["function"]["name"]):
                raise DataError(
                    f"{self.where}: the chat template does not show the function {tool['function']['name']} "
                    "(tools); data.template gives another"
                )

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
            raise self._untold(number)
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
        if behind == text or behind_alone == alone:  # nothing changed: the answer is not shown
            raise self._untold(number)
        shared = behind[: _shared(behind, behind_alone)]
        if shared != behind_alone:  # what follows may begin as what is left out does
            shared = self._whole(shared)
        return len(text) - len(behind) + len(shared)

    def _whole(self, text: str) -> str:
        """The beginning of a text up to its last special token, or else to its last blank."""
        ends = [at + len(token) for token in self.specials if (at := text.rfind(token)) >= 0]
        ends = ends or [place + 1 for place, letter in enumerate(text) if letter.isspace()]
        return text[: max(ends, default=0)]

    def _last_special(self, text: str) -> str:
        """The special token that a text ends with, and blanks behind it."""
        ending = text.rstrip()
        tokens = [token for token in self.specials if token and ending.endswith(token)]
        return max(tokens, key=len, default="") + text[len(ending) :] if tokens else ""

    def _without_border(self, text: str, start: int, end: int) -> int:
        """The end of an answer without the blank that a template sets between turns, behind a token that ends one."""
        stripped = text[start:end].rstrip()
        ends = tuple(self.specials)
        return start + len(stripped) if ends and stripped.endswith(ends) else end

    def _text(self, turns: Turns, ask: bool = False) -> str:
        return self.look(turns, ask)[0]

    def _changed(self, number: int) -> Turns:
        """The turns with one that says something else, from its first letter to its last."""
        turn = self.turns[number]
        if turn.get("tool_calls"):
            *calls, last = turn["tool_calls"]
            function = last["function"]
            other: dict[str, Any] = {**last, "function": {**function, "name": _unlike(function["name"])}}
            turn = {**turn, "tool_calls": [*calls, other]}
        else:
            turn = {**turn, "content": _unlike(turn["content"])}
        return [*self.turns[:number], turn, *self.turns[number + 1 :]]

    def _untold(self, number: int) -> DataError:
        return DataError(
            f"{self.where}: the chat template cannot tell what the assistant says in turn {number + 1}: what is before "
            "and behind it looks otherwise within the whole. Give a template by data.template that has "
            "{% generation %} and {% endgeneration %} around what the assistant says"
        )


def _behind(text: str, other: str) -> str:
    """The longest ending of a text that another has too."""
    return text[len(text) - _shared(text[::-1], other[::-1]) :]


def _shared(text: str, other: str) -> int:
    """How many of the first letters of two texts are the same."""
    low, high = 0, min(len(text), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if text[:middle] == other[:middle] else (low, middle - 1)
    return low


def _has(text: str, content: str) -> bool:
    """Whether a text holds another one, blanks around it aside, as it stands or as JSON writes it."""
    content = content.strip()
    return content in text or json.dumps(content, ensure_ascii=False)[1:-1] in text or json.dumps(content)[1:-1] in text


def _unlike(text: str) -> str:
    """A letter that a text neither begins nor ends with."""
    text = text.strip()
    return next(letter for letter in "012" if not text.startswith(letter) and not text.endswith(letter))

r"""Conversations in the common formats of chat data, read into one type.

A row of a file has one of these formats. `columns` renames columns; names of roles are not case-sensitive:

    messages         {messages: [{role, content, tool_calls}, ...], tools, system}       OpenAI, transformers
    ShareGPT         {conversations: [{from, value}, ...], tools, system}                FastChat, LLaMA-Factory, NeMo
    Alpaca           {instruction, input, output, system, history}                       Stanford Alpaca
    prompt           {prompt, completion}, each a text or a list of messages             TRL, OpenAI
    transcripts      "\n\nHuman: ...\n\nAssistant: ..." instead of any text above            Anthropic
    pairs            any of them up to the answer, with {chosen, rejected}: texts, messages or whole conversations,
                     and optional {chosen_reward, rejected_reward}                       TRL, UltraFeedback, NeMo
    labels           any of them with {label}: whether the answer is good                KTO
    attributes       any of them with {attributes}: numeric ratings of the answer        SteerLM
    checks           any of them with {check}: what a correct answer must satisfy;       docs/evaluate.md
                     the answer itself may be missing
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from prunus.data.columns import Columns
from prunus.data.config import ChatSource, SourceRef
from prunus.data.sources import rows
from prunus.data.transcripts import refuse_other_forms, transcript
from prunus.data.turns import LEARNT, Turns, parsed, read_tools, read_turns, without_unset
from prunus.errors import DataError
from prunus.files import MAX_DEPTH, depth_exceeds

__all__ = ["Conversation", "Turns", "checked", "conversation", "conversations"]


@dataclass(frozen=True)
class Conversation:
    """One row.

    Attributes:
        where: Its name in messages: the source in the recipe, its path, and the row from 1.
        messages: The turns, in the form of chat templates; for a pair, with the chosen answer.
        tools: The functions that the assistant may call, as JSON schemas.
        prompt: The number of turns before a judged answer; 0 if every assistant turn is trained on.
        rejected: For a pair, the turns with the rejected answer; the first `prompt` turns are the same.
        rewards: For a pair, the rewards of the chosen and the rejected answer.
        desirable: The label of the answer, if there is one: true for a good answer.
        attributes: Ratings of the answer by name, such as helpfulness: 4.
        check: The check of the last answer; see `prunus.verify.reward`.
        unread: The row's columns that nothing reads.
    """

    where: str
    messages: Turns
    tools: Turns | None = None
    prompt: int = 0
    rejected: Turns | None = None
    rewards: tuple[float, float] | None = None
    desirable: bool | None = None
    attributes: dict[str, float] | None = None
    check: dict[str, Any] | None = None
    unread: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """The source of the row, for messages."""
        return self.where.rpartition(", row ")[0]

    def require(self, kind: str) -> None:
        """Refuse a row that lacks data: `answers`, `pairs`, `rewards`, `labels`, `attributes` or `checks`.

        All kinds but `checks` include an answer.

        Raises:
            DataError: The message names the row, and what it lacks.
        """
        lacks = {
            "answers": (
                not any(turn["role"] == "assistant" for turn in self.messages),
                "the assistant has no turn; a row with a check may leave it out only where the model answers",
            ),
            "pairs": (self.rejected is None, "chosen and rejected are missing; this method needs pairs"),
            "rewards": (
                self.rewards is None,
                "chosen_reward and rejected_reward are missing; this method needs them",
            ),
            "labels": (self.desirable is None, "label is missing; this method needs boolean labels"),
            "attributes": (not self.attributes, "attributes is missing; this method needs ratings of the answers"),
            "checks": (not self.check, "check is missing; allowed: a check in every row, or another write.reward"),
        }
        for one in (kind,) if kind == "checks" else ("answers", kind):
            lacking, message = lacks.get(one, (False, ""))
            if lacking:
                raise DataError(f"{self.where}: {message}")

    def prompt_turns(self) -> Turns:
        """The turns before the last answer."""
        turns = list(self.messages)
        while turns and turns[-1]["role"] == "assistant":
            turns.pop()
        return turns


_LABELS = {"true": True, "1": True, "false": False, "0": False}  # cells of CSV files are text


def conversations(source: ChatSource, where: str) -> Iterator[Conversation]:
    """Yield the rows of `source`, in order, up to its `limit`.

    Args:
        source: The source.
        where: The source's name in the recipe, such as `data.chat.0`, for messages.

    Raises:
        DataError: The source cannot be read; or a row has an unknown format, no assistant turn, an answer without a
            question before it, an incomplete pair (chosen, rejected or a reward is missing), a reward that is not
            finite, or equal answers.
        HubError: It cannot be fetched from the hub.
    """
    filled = fills_in(source)
    for number, row in enumerate(rows(source, where), start=1):
        if source.limit is not None and number > source.limit:
            return
        yield conversation(row, f"{where}: {source.path}, row {number}", source.columns, filled)


def checked(source: ChatSource, count: int, where: str) -> list[Conversation]:
    """The first `count` rows of a source, all with checks.

    Args:
        source: The source.
        count: The number of rows.
        where: The source's name in the recipe, for messages.

    Raises:
        DataError: As `conversations`; or a row has no check, or there are too few rows.
        HubError: It cannot be fetched from the hub.
    """
    found = list(islice(conversations(source, where), count))
    for row in found:
        row.require("checks")
    if len(found) < count:
        raise DataError(f"{where}: {source.path} has {len(found)} conversations, expected at least {count}")
    return found


def fills_in(source: SourceRef) -> bool:
    """Whether a source's format fills in nulls for fields that only other rows have; see `conversation`."""
    return not {".json", ".jsonl"} & {suffix.lower() for suffix in Path(source.path).suffixes}


def conversation(
    row: Mapping[str, Any], where: str, columns: Mapping[str, str] | None = None, filled: bool = False
) -> Conversation:
    """One row as a conversation.

    Args:
        row: Its columns.
        where: The row's name in messages.
        columns: Names of columns that differ from `COLUMNS`, by their role there.
        filled: Whether the file format fills in nulls for fields that only other rows have, as Parquet does; such
            nulls are not arguments of a call.

    Raises:
        DataError: As `conversations`.
    """
    if depth_exceeds(dict(row), MAX_DEPTH):
        raise DataError(f"{where}: nested deeper than {MAX_DEPTH} levels")
    cells = Columns(row, columns or {}, where)
    form = _Form(cells, where, filled)
    if cells.has("chosen") or cells.has("rejected"):
        return form.pair()
    check = parsed(cells.take("check"), where)
    if check is not None and not isinstance(check, Mapping):
        raise DataError(f"{where}: check is {check!r:.60}; expected a mapping")
    turns = form.whole(is_checked=check is not None)
    if check is None or turns[-1]["role"] != "user":  # with a check, a question may have no answer
        check_answered(turns, where)
    tools, attributes = (
        read_tools(cells.take("tools"), where),
        _attributes(cells.take("attributes"), where),
    )
    label = cells.take("label")
    result = Conversation(where, turns, tools, attributes=attributes, check=without_unset(check), unread=cells.unread())
    if label is not None:
        label = _LABELS.get(label.strip().lower(), label) if isinstance(label, str) else label
        if not isinstance(label, (bool, int)) or label not in (0, 1):
            raise DataError(f"{where}: label is {label!r:.60}; expected true (a good answer) or false")
        result = replace(result, desirable=bool(label), prompt=len(result.prompt_turns()))
    return result


@dataclass(frozen=True)
class _Form:
    """A row during its conversion into turns."""

    columns: Columns
    where: str
    filled: bool

    def whole(self, is_checked: bool) -> Turns:
        """All turns of a row that is not a pair; with a check, it may be a prompt without an answer."""
        columns = self.columns
        if columns.has("messages"):
            return self._with_history(self._turns(columns.take("messages")))
        is_asked = columns.has("prompt") or columns.has("input")
        if columns.has("completion") and is_asked:
            return self._continued(self._prompt(), "completion")
        if is_asked and is_checked:
            return self._with_history(self._prompt())
        if columns.has("text"):
            text = columns.take("text")
            turns = transcript(text, self.where) if isinstance(text, str) else None
            if turns is not None:
                return self._with_history(turns)
        raise DataError(
            f"{self.where} has the columns {', '.join(map(str, columns.row))!s:.300}; expected messages, "
            "conversations, prompt and completion, instruction and output, or chosen and rejected; `columns` maps "
            "other names"
        )

    def pair(self) -> Conversation:
        """A row with two answers."""
        columns, where = self.columns, self.where
        for name in ("chosen", "rejected"):
            if not columns.take(name):
                raise DataError(f"{where}: {name} is missing; a pair needs both")
        prompt = self._turns(columns.take("messages")) if columns.has("messages") else self._prompt()
        chosen, rejected = (self._continued(prompt, name) for name in ("chosen", "rejected"))
        if chosen == rejected:
            raise DataError(f"{where}: chosen and rejected are equal; the pair carries no preference")
        shared = 0
        while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
            shared += 1
        for name, turns in (("chosen", chosen), ("rejected", rejected)):
            check_answered(turns, f"{where}, {name}", shared)
            if turns[shared]["role"] != "assistant":
                raise DataError(f"{where}: chosen and rejected answer different questions")
        rewards = tuple(_reward(columns.take(name), name, where) for name in ("chosen_reward", "rejected_reward"))
        if (rewards[0] is None) != (rewards[1] is None):
            raise DataError(f"{where}: one of chosen_reward and rejected_reward is missing; give both, or neither")
        both = None if rewards[0] is None or rewards[1] is None else (rewards[0], rewards[1])
        tools = read_tools(columns.take("tools"), where)
        return Conversation(where, chosen, tools, shared, rejected, both, unread=columns.unread())

    def _prompt(self) -> Turns:
        """The turns of the prompt: a text with an optional input below it, or messages; empty without a prompt."""
        prompt, more = self.columns.take("prompt"), self.columns.take("input")
        if prompt is None or (prompt == "" and more):
            prompt, more = more, None
        if prompt is None:
            return []
        if not isinstance(prompt, str):
            if more:
                raise DataError(f"{self.where}: input is set, but the prompt is a list of messages; expected a text")
            return self._turns(prompt)
        if not prompt.strip():
            raise DataError(f"{self.where}: the prompt is empty")
        if more and not isinstance(more, str):
            raise DataError(f"{self.where}: the input is {more!r:.60}; expected text")
        turns = None if more else transcript(prompt, f"{self.where}, prompt")
        if turns is None:
            return [{"role": "user", "content": f"{prompt}\n{more}" if more else prompt}]
        return turns[:-1] if turns[-1] == {"role": "assistant", "content": ""} else turns

    def _continued(self, prompt: Turns, name: str) -> Turns:
        """A conversation from a prompt and an answer, which is a text, messages, or the whole conversation."""
        answer, where = self.columns.take(name), f"{self.where}, {name}"
        turns: Turns | None = None
        if isinstance(answer, str):
            turns = transcript(answer, where)
            if turns is None:
                refuse_other_forms(answer, where)
                turns = [{"role": "assistant", "content": answer}]
        else:
            turns = self._turns([answer] if isinstance(answer, Mapping) else answer)
        if turns[0]["role"] in ("user", "system"):
            _check_same_question(prompt, turns, where)
            system = prompt[:1] if prompt and prompt[0]["role"] == "system" and turns[0]["role"] == "user" else []
            return self._with_history([*system, *turns])
        if turns[0]["role"] == "assistant" and prompt and prompt[-1]["role"] == "assistant":
            raise DataError(f"{where}: the turn before it is the assistant's, too; expected a question there")
        return self._with_history([*prompt, *turns])

    def _with_history(self, turns: Turns) -> Turns:
        """Put the system message and the history of the row's columns before the turns."""
        text, where = self.columns.take("system"), self.where
        if text is not None and not isinstance(text, str):
            raise DataError(f"{where}: system is {text!r:.60}; expected text")
        own = turns[:1] if turns and turns[0]["role"] == "system" else []
        if text and text.strip():
            if own and own[0]["content"].strip() != text.strip():
                raise DataError(
                    f"{where}: the column `system` holds {text!r:.60}, and the system turn {own[0]['content']!r:.60}; "
                    "give one"
                )
            own, turns = [{"role": "system", "content": text}], turns[len(own) :]
        else:
            turns = turns[len(own) :]
        return [*own, *self._history(), *turns]

    def _history(self) -> Turns:
        """Earlier turns: pairs of question and answer, as in LLaMA-Factory, or messages."""
        history = parsed(self.columns.take("history"), self.where)
        if not history:
            return []
        if not isinstance(history, (list, tuple)):
            raise DataError(f"{self.where}: history is {history!r:.60}; expected pairs of question and answer")
        if all(isinstance(turn, Mapping) for turn in history):
            return self._turns(history)
        turns: Turns = []
        for pair in history:
            if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
                raise DataError(f"{self.where}: history holds {pair!r:.60}; expected pairs of question and answer")
            turns += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
        return turns

    def _turns(self, value: Any) -> Turns:
        return read_turns(value, self.where, self.filled)


def with_attributes(turns: Turns, attributes: dict[str, float]) -> Turns:
    """Append the ratings of the answer to the system message (SteerLM, arXiv 2310.05344)."""
    text = "Attributes: " + ", ".join(f"{name}: {number:g}" for name, number in sorted(attributes.items()))
    if turns[0]["role"] == "system":
        return [{**turns[0], "content": f"{turns[0]['content']}\n{text}"}, *turns[1:]]
    return [{"role": "system", "content": text}, *turns]


def check_answered(turns: Turns, where: str, shared: int = 0) -> None:
    """Refuse turns that cannot be trained on.

    Args:
        turns: A conversation.
        where: Its name in messages.
        shared: The number of first turns that are not trained on.

    Raises:
        DataError: The assistant has no turn, an empty one, or one before the user's first.
    """
    answers = [number for number, turn in enumerate(turns) if turn["role"] == "assistant" and number >= shared]
    if not answers:
        raise DataError(f"{where}: the assistant has no turn; roles: {', '.join(turn['role'] for turn in turns)}")
    learnt = [number for number in answers if turns[number].get(LEARNT, True)]
    if not learnt:
        raise DataError(f"{where}: every assistant turn is excluded from training; remove the row")
    for number in learnt:
        if not turns[number]["content"].strip() and not turns[number].get("tool_calls"):
            raise DataError(
                f"{where}, turn {number + 1}: the assistant's turn is empty; expected text or a function call"
            )
    before = turns[: min(shared, learnt[0]) if shared else learnt[0]]
    if not any(turn["role"] == "user" for turn in before):
        raise DataError(
            f"{where}: the assistant answers before the user asks anything; expected a prompt (`columns: {{prompt: "
            "...}` names its column), or a user turn before the answer"
        )


def _check_same_question(prompt: Turns, turns: Turns, where: str) -> None:
    """Refuse a whole conversation that does not contain the row's prompt."""
    users, questions = (
        [turn["content"].strip() for turn in some if turn["role"] == "user"] for some in (turns, prompt)
    )
    if questions and users and not any(questions[-1] in text or text in questions[-1] for text in users):
        raise DataError(f"{where}: a conversation without the row's prompt, {questions[-1]!r:.60}; give one of the two")


def _reward(value: Any, name: str, where: str) -> float | None:
    if value is None:
        return None
    try:
        reward = float(value)
    except (TypeError, ValueError, OverflowError):
        reward = math.nan
    if not math.isfinite(reward):
        raise DataError(f"{where}: {name} is {value!r:.60}; expected a finite number")
    return reward


def _attributes(value: Any, where: str) -> dict[str, float] | None:
    """Ratings by name, from a mapping or from NeMo's `helpfulness:4,toxicity:0`."""
    if not value:
        return None
    try:
        if isinstance(value, str):
            value = dict(part.split(":", 1) for part in value.split(",") if ":" in part)
        result = {str(name).strip(): float(number) for name, number in dict(without_unset(value)).items()}
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{where}: attributes is {value!r:.60}; expected numbers by name") from None
    if not all(map(math.isfinite, result.values())):
        raise DataError(f"{where}: attributes is {value!r:.60}; expected finite numbers")
    return result

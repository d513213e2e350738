"""Conversations, in the forms that people keep them in, as one typed form.

A row of a file is one of these; names of columns are not case-sensitive in their values, and `columns` renames them:

    messages         {messages: [{role, content, tool_calls}, ...], tools, system}       OpenAI's and transformers' own
    ShareGPT         {conversations: [{from, value}, ...], tools, system}                FastChat, LLaMA-Factory, NeMo
    Alpaca           {instruction, input, output, system, history}                       Stanford Alpaca
    prompt           {prompt, completion}, each a text or a list of messages             TRL, OpenAI
    pairs            any of them up to the answer, with {chosen, rejected}: texts, messages or whole conversations,
                     and {chosen_reward, rejected_reward} where there are rewards        TRL, UltraFeedback, NeMo
    labels           any of them with {label}: whether the answer is wanted              KTO
    attributes       any of them with {attributes}: what the answer is like, in numbers  SteerLM
    checks           any of them with {check}: what makes an answer right                docs/evaluate.md
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from prunus.data.config import ChatSource
from prunus.data.sources import rows
from prunus.errors import DataError, nearest

Turns = list[dict[str, Any]]

ROLES = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "model"), "assistant"),
    **dict.fromkeys(("tool", "observation", "function", "function_response", "ipython"), "tool"),
    **dict.fromkeys(("system", "developer"), "system"),
    "function_call": "function_call",
}
"""What speakers are called, and who that is; `function_call` is an assistant's turn that calls functions."""

COLUMNS = {
    "messages": ("messages", "conversations", "conversation"),
    "prompt": ("prompt", "instruction"),
    "input": ("input",),
    "completion": ("completion", "response", "output"),
    "history": ("history",),
    "system": ("system",),
    "tools": ("tools", "functions"),
    "chosen": ("chosen", "chosen_response"),
    "rejected": ("rejected", "rejected_response"),
    "chosen_reward": ("chosen_reward", "reward_chosen", "chosen_score", "score_chosen", "chosen_rating"),
    "rejected_reward": ("rejected_reward", "reward_rejected", "rejected_score", "score_rejected", "rejected_rating"),
    "label": ("label", "kto_tag"),
    "attributes": ("attributes",),
    "check": ("check",),
}
"""What is read of a row, and the names that it goes by."""


@dataclass(frozen=True)
class Conversation:
    """One row.

    Attributes:
        where: Which it is, for messages: the source in the recipe, its path, and the row from 1.
        messages: The turns as chat templates take them; of a pair with the chosen answer.
        tools: The functions that the assistant may call, as JSON schemas.
        prompt: How many of the first turns ask for what is judged; 0 where every turn of the assistant counts.
        rejected: Of a pair, the turns with the rejected answer; they share the first `prompt`.
        rewards: Of a pair, those of the chosen and of the rejected answer.
        desirable: Whether the answer is wanted, where rows say so.
        attributes: What an answer is like, by name, such as helpfulness: 4.
        check: What the last answer is checked by; see `prunus.verify.reward`.
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

    def check_has(self, wanted: str) -> None:
        """Refuse a row that lacks what is wanted of it: `pairs`, `rewards`, `labels`, `attributes` or `checks`.

        Raises:
            DataError: Names the row, and what it lacks.
        """
        lacks = {
            "pairs": (self.rejected is None, "chosen and rejected are missing; this method learns from pairs"),
            "rewards": (
                self.rewards is None,
                "chosen_reward and rejected_reward are missing; this method learns from them",
            ),
            "labels": (
                self.desirable is None,
                "label is missing; this method learns from answers that are true or false",
            ),
            "attributes": (not self.attributes, "attributes is missing; this method learns what answers are like"),
            "checks": (not self.check, "check is missing; write.reward is `check`, or a reward model's folder"),
        }
        lacking, message = lacks.get(wanted, (False, ""))
        if lacking:
            raise DataError(f"{self.where}: {message}")

    def asks(self) -> Turns:
        """The turns before the last answer."""
        turns = list(self.messages)
        while turns and turns[-1]["role"] == "assistant":
            turns.pop()
        return turns


def conversations(source: ChatSource, where: str) -> Iterator[Conversation]:
    """Yield the rows of `source`, in order, up to its `limit`.

    Args:
        source: What to read.
        where: The source's name in the recipe, such as `data.chat.0`, for messages.

    Raises:
        DataError: The source cannot be read, or a row is of no known form, has no turn of the assistant, lacks one of
            chosen, rejected and reward where it has another, has a reward that is not finite, or equal answers.
        HubError: It is on the hub, which does not give it.
    """
    for number, row in enumerate(rows(source, where), start=1):
        if source.limit is not None and number > source.limit:
            return
        yield conversation(row, f"{where}: {source.path}, row {number}", source.columns)


def conversation(row: Mapping[str, Any], where: str, columns: Mapping[str, str] | None = None) -> Conversation:
    """One row as a conversation.

    Args:
        row: Its columns.
        where: Which it is, for messages.
        columns: Names of columns by what they are read as, where they are none of `COLUMNS`.

    Raises:
        DataError: As `conversations`.
    """
    found = _columns(row, columns or {}, where)
    start = _system(found) + _history(found, where)
    tools = _tools(found.get("tools"), where)
    if "chosen" in found or "rejected" in found:
        return _pair(found, start, tools, where)
    if "messages" in found:
        turns = [*start, *_turns(found["messages"], where)]
    elif "prompt" in found and "completion" in found:
        turns = [*start, *_asked(found, where), *_answer(found["completion"], where)]
    else:
        raise DataError(
            f"{where} has the columns {', '.join(row)}; wanted are messages, conversations, prompt and completion, "
            "instruction and output, or chosen and rejected; `columns` says what yours are called"
        )
    _check_answered(turns, where)
    check = _parsed(found.get("check"))
    if check is not None and not isinstance(check, Mapping):
        raise DataError(f"{where}: check is {check!r:.60}; a mapping is wanted")
    attributes = _attributes(found.get("attributes"), where)
    result = Conversation(where, turns, tools, attributes=attributes, check=_set(check))
    if "label" in found:
        if not isinstance(found["label"], (bool, int)) or found["label"] not in (0, 1):
            raise DataError(f"{where}: label is {found['label']!r}; true, where the answer is wanted, or false")
        result = replace(result, desirable=bool(found["label"]), prompt=len(result.asks()))
    return result


def _columns(row: Mapping[str, Any], columns: Mapping[str, str], where: str) -> dict[str, Any]:
    """What is read of a row and is there, without what is not set."""
    for wanted, name in columns.items():
        if name not in row:
            raise DataError(f"{where}: no column {name!r} for {wanted}{nearest(name, row)}; it has: {', '.join(row)}")
    found = {}
    for wanted, names in COLUMNS.items():
        given = [row[name] for name in (columns.get(wanted, ""), *names) if row.get(name) is not None]
        if given:
            found[wanted] = given[0]
    return found


def _pair(found: dict[str, Any], start: Turns, tools: Turns | None, where: str) -> Conversation:
    """A row of two answers."""
    for name in ("chosen", "rejected"):
        if not found.get(name):
            raise DataError(f"{where}: {name} is missing; a pair has both")
    if "messages" in found or "prompt" in found:
        start = [*start, *(_turns(found["messages"], where) if "messages" in found else _asked(found, where))]
    chosen, rejected = (_continued(start, found[name], where) for name in ("chosen", "rejected"))
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    if chosen == rejected:
        raise DataError(f"{where}: chosen and rejected are equal; nothing can be learnt from that")
    for name, turns in (("chosen", chosen), ("rejected", rejected)):
        _check_answered(turns[shared:], f"{where}, {name}")
    rewards = tuple(_reward(found, name, where) for name in ("chosen_reward", "rejected_reward"))
    if (rewards[0] is None) != (rewards[1] is None):
        raise DataError(f"{where}: one of chosen_reward and rejected_reward is missing; give both, or neither")
    given = None if rewards[0] is None or rewards[1] is None else (rewards[0], rewards[1])
    return Conversation(where, chosen, tools, shared, rejected, given)


def _continued(start: Turns, answer: Any, where: str) -> Turns:
    """A conversation from its start and an answer, which may be the whole of it."""
    turns = _answer(answer, where)
    whole = turns[0]["role"] in ("user", "system")
    if whole and start and start[0]["role"] == "system" and turns[0]["role"] != "system":
        return [start[0], *turns]
    return turns if whole else [*start, *turns]


def _reward(found: dict[str, Any], name: str, where: str) -> float | None:
    if name not in found:
        return None
    try:
        reward = float(found[name])
    except (TypeError, ValueError):
        reward = math.nan
    if not math.isfinite(reward):
        raise DataError(f"{where}: {name} is {found[name]!r}; a finite number is wanted")
    return reward


def _asked(found: dict[str, Any], where: str) -> Turns:
    """What a prompt asks: a text, with an input below it where there is one, or messages."""
    prompt, more = found["prompt"], found.get("input")
    if isinstance(prompt, str):
        if not prompt.strip():
            raise DataError(f"{where}: the prompt is empty")
        return [{"role": "user", "content": f"{prompt}\n{more}" if more else prompt}]
    return _turns(prompt, where)


def _answer(value: Any, where: str) -> Turns:
    """What is answered: a text, one message or several."""
    if isinstance(value, str):
        return [{"role": "assistant", "content": value}]
    return _turns([value] if isinstance(value, Mapping) else value, where)


def _system(found: dict[str, Any]) -> Turns:
    text = found.get("system")
    return [{"role": "system", "content": text}] if isinstance(text, str) and text.strip() else []


def _history(found: dict[str, Any], where: str) -> Turns:
    """Earlier exchanges, as LLaMA-Factory keeps them: pairs of question and answer."""
    turns: Turns = []
    for pair in found.get("history") or ():
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise DataError(f"{where}: history holds {pair!r:.60}; pairs of question and answer are wanted")
        turns += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    return turns


def _turns(value: Any, where: str) -> Turns:
    """A list of turns in either spelling as {role, content}."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise DataError(f"{where}: {value!r:.60} is no list of messages") from None
    if not isinstance(value, (list, tuple)) or not value:
        raise DataError(f"{where}: {value!r:.60} is no list of messages")
    return [_turn(turn, f"{where}, turn {number}") for number, turn in enumerate(value, start=1)]


def _turn(turn: Any, where: str) -> dict[str, Any]:
    if not isinstance(turn, Mapping):
        raise DataError(f"{where} is {type(turn).__name__}; {{role, content}} or {{from, value}} is wanted")
    kept = _set(turn)
    name, content = kept.pop("role", kept.pop("from", None)), kept.pop("content", kept.pop("value", None))
    role = ROLES.get(str(name).strip().lower())
    if role is None:
        raise DataError(f"{where}: the role is {name!r}{nearest(str(name), ROLES)}; known: {', '.join(ROLES)}")
    if role == "function_call":
        return {"role": "assistant", "content": "", "tool_calls": _calls(content, where)}
    if "tool_calls" in kept:
        kept["tool_calls"] = _calls(kept["tool_calls"], where)
        content = content or ""
    return {"role": role, "content": _text(content, where), **kept}


def _text(content: Any, where: str) -> str:
    """The text of a turn, which may come in parts."""
    if isinstance(content, list) and all(isinstance(part, Mapping) and "text" in part for part in content):
        content = "".join(str(part["text"]) for part in content)
    if not isinstance(content, str):
        raise DataError(f"{where}: the content is {content!r:.60}; text is wanted")
    return content


def _calls(value: Any, where: str) -> Turns:
    """Calls of functions as chat templates take them: {type: function, function: {name, arguments}}."""
    value = _parsed(value)
    calls = []
    for call in value if isinstance(value, list) else [value]:
        found = call.get("function", call) if isinstance(call, Mapping) else {}
        arguments = _parsed(found.get("arguments", {})) if isinstance(found, Mapping) else None
        if not isinstance(found, Mapping) or not isinstance(found.get("name"), str):
            raise DataError(f"{where}: {value!r:.80} is no call of a function; {{name, arguments}} is wanted")
        calls.append({"type": "function", "function": {"name": found["name"], "arguments": arguments}})
    return calls


def _tools(value: Any, where: str) -> Turns | None:
    """Functions that may be called, as chat templates take them: {type: function, function: schema}."""
    value = _parsed(value) if value else None
    if not value:
        return None
    tools = []
    for tool in value if isinstance(value, list) else [value]:
        if not isinstance(tool, Mapping):
            raise DataError(f"{where}: tools holds {tool!r:.60}; JSON schemas of functions are wanted")
        kept = _set(tool)
        tools.append(kept if "function" in kept else {"type": "function", "function": kept})
    return tools


def _attributes(value: Any, where: str) -> dict[str, float] | None:
    """Attributes by name, from a mapping or from NeMo's `helpfulness:4,toxicity:0`."""
    if not value:
        return None
    if isinstance(value, str):
        value = dict(part.split(":", 1) for part in value.split(",") if ":" in part)
    try:
        found = {str(name).strip(): float(number) for name, number in dict(_set(value)).items()}
    except (TypeError, ValueError):
        raise DataError(f"{where}: attributes is {value!r:.60}; numbers by name are wanted") from None
    if not all(map(math.isfinite, found.values())):
        raise DataError(f"{where}: attributes is {value!r:.60}; finite numbers are wanted")
    return found


def _parsed(value: Any) -> Any:
    """JSON where a text is some."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _set(value: Any) -> Any:
    """Without what is not set, at any depth: tables fill in None where only other rows have a field."""
    if isinstance(value, Mapping):
        return {key: _set(item) for key, item in value.items() if item is not None}
    return [_set(item) for item in value] if isinstance(value, list) else value


def _check_answered(turns: Turns, where: str) -> None:
    answers = [turn for turn in turns if turn["role"] == "assistant"]
    if not answers:
        raise DataError(f"{where}: the assistant has no turn; roles: {', '.join(turn['role'] for turn in turns)}")
    if not any(turn["content"].strip() or turn.get("tool_calls") for turn in answers):
        raise DataError(f"{where}: the assistant says nothing")

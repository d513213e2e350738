"""Turns of a conversation: from the common formats to the form that chat templates expect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunus.errors import DataError, among
from prunus.files import parse_json

Turns = list[dict[str, Any]]

ROLES = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "model"), "assistant"),
    **dict.fromkeys(("tool", "observation", "function", "function_response", "ipython"), "tool"),
    **dict.fromkeys(("system", "developer"), "system"),
    "function_call": "function_call",
}
"""Names of speakers, and the role of each; `function_call` is an assistant turn that calls functions."""

LEARNT = "learnt"
"""The key, with the value False, of a turn that is excluded from training. Chat templates do not see it."""

MARKS = ("weight", "loss_weight", "train", "training", "trainable", "train_on_turn", "loss", "loss_mask")
"""Names of fields that say whether a turn is trained on: 0 or false, 1 or true."""

_UNREADABLE = ("train_detail", "training_detail", "token_weights", "mask", "masked")
"""Fields that refer to a part of a turn, or whose true may mean either."""

_TEXT_PARTS = (None, "text", "input_text", "output_text")
_ARGUMENTS = ("arguments", "parameters", "args")
_CALL = ("name", "id", "type", "index", *_ARGUMENTS)


def read_turns(value: Any, where: str, filled: bool = False) -> Turns:
    """Convert a list of turns, {role, content} or {from, value}, to {role, content, tool_calls, ...}.

    Args:
        value: The list, or its JSON.
        where: The row's name in messages.
        filled: Whether the file format fills in nulls for fields that only other rows have, as Parquet does.

    Raises:
        DataError: A turn is invalid; the message names it.
    """
    value = parsed(value, where)
    if not isinstance(value, (list, tuple)) or not value:
        raise DataError(f"{where}: {value!r:.60} is not a list of messages")
    return [_turn(turn, f"{where}, turn {number}", filled) for number, turn in enumerate(value, start=1)]


def _turn(turn: Any, where: str, filled: bool) -> dict[str, Any]:
    if not isinstance(turn, Mapping):
        raise DataError(f"{where} is {type(turn).__name__}; expected {{role, content}} or {{from, value}}")
    kept = {key: value for key, value in turn.items() if value is not None}
    given = [kept.pop(key) for key in ("tool_calls", "function_call") if without_unset(kept.get(key))]
    kept = {key: without_unset(value) for key, value in kept.items() if key not in ("tool_calls", "function_call")}
    name, content = kept.pop("role", None), kept.pop("content", None)
    name, content = kept.pop("from", name) if name is None else name, kept.pop("value", content)
    role = ROLES.get(str(name).strip().lower())
    if role is None:
        raise DataError(f"{where}: the role is {name!r:.60}{among(str(name)[:60], ROLES)}")
    if role == "function_call":
        role, given, content = "assistant", [*given, content], ""
    if len(given) > 1:
        raise DataError(f"{where}: function calls are given twice (tool_calls, function_call)")
    if given and role != "assistant":
        raise DataError(f"{where}: a turn of the {role} calls functions; only the assistant does")
    if given:
        kept["tool_calls"] = _calls(given[0], where, filled)
    if not _is_learnt(kept, role, where):
        kept[LEARNT] = False
    text = _text("" if content is None and given else content, where)
    if role == "user" and not text.strip():
        raise DataError(f"{where}: the user's turn is empty")
    return {"role": role, "content": text, **kept}


def _is_learnt(kept: dict[str, Any], role: str, where: str) -> bool:
    """Whether a turn is trained on, according to its marks, which are removed from it."""
    unreadable = [name for name in _UNREADABLE if name in kept]
    if unreadable:
        raise DataError(
            f"{where}: {unreadable[0]} is {kept[unreadable[0]]!r:.60}, which is not supported; allowed: "
            f"{', '.join(MARKS)}, each 0 or 1, true or false, for a whole turn"
        )
    marks = {name: kept.pop(name) for name in MARKS if name in kept}
    for name, value in marks.items():
        if not isinstance(value, (bool, int, float)) or value not in (0, 1):
            raise DataError(f"{where}: {name} is {value!r:.60}; allowed: 0 or 1, true or false (no fraction of a turn)")
    if len(set(map(bool, marks.values()))) > 1:
        raise DataError(f"{where}: {', '.join(marks)} contradict each other")
    if role != "assistant" and any(marks.values()):
        raise DataError(
            f"{where}: {next(iter(marks))} marks a turn of the {role} as trained on; only the assistant's turns are"
        )
    return all(marks.values()) or role != "assistant"


def _text(content: Any, where: str) -> str:
    """The text of a turn, which may be a list of parts."""
    if isinstance(content, list):
        for part in content:
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            if not isinstance(part, Mapping) or kind not in _TEXT_PARTS or not isinstance(part.get("text"), str):
                raise DataError(f"{where}: a part of the content is {kind!r:.60}; only text parts are allowed")
        return "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise DataError(f"{where}: the content is {content!r:.60}; expected text")
    return content


def _calls(value: Any, where: str, filled: bool) -> Turns:
    """Function calls in the form of chat templates: {type: function, function: {name, arguments}}."""
    value = parsed(value, where)
    calls = []
    for call in value if isinstance(value, list) else [value]:
        body = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(body, Mapping) or not isinstance(body.get("name"), str):
            raise DataError(f"{where}: {value!r:.80} is not a function call; expected {{name, arguments}}")
        arguments = _arguments(body, where)
        function = {"name": body["name"], "arguments": without_unset(arguments) if filled else arguments}
        identity = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
        calls.append({**identity, "type": "function", "function": function})
    return calls


def _arguments(call: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The arguments of a call, including nulls."""
    given = [call[name] for name in _ARGUMENTS if call.get(name) is not None]
    other = [str(key) for key in call if key not in _CALL and call[key] is not None]
    arguments = parsed(given[0], f"{where}, arguments") if given else {}
    if len(given) > 1 or other or not isinstance(arguments, Mapping):
        raise DataError(
            f"{where}: a call of {call['name']!r:.60} has "
            + (f"{', '.join(other)!r:.60}" if other else f"the arguments {given!r:.80}")
            + "; expected {name, arguments}, where arguments is an object"
        )
    return arguments


def read_tools(value: Any, where: str) -> Turns | None:
    """Functions that may be called, in the form of chat templates: {type: function, function: schema}.

    Raises:
        DataError: The value is not a schema of a function.
    """
    value = parsed(value, f"{where}, tools") if value else None
    if not value:
        return None
    tools = []
    for tool in value if isinstance(value, list) else [value]:
        kept = without_unset(tool)
        made = kept if isinstance(kept, dict) and "function" in kept else {"type": "function", "function": kept}
        schema = made["function"]
        if not isinstance(schema, Mapping) or not isinstance(schema.get("name"), str):
            raise DataError(f"{where}: tools holds {tool!r:.60}; expected JSON schemas of functions, with names")
        tools.append(made)
    return tools


def parsed(value: Any, where: str) -> Any:
    """Parse a text that begins like a JSON list or object; return anything else unchanged.

    Raises:
        DataError: Such a text is not JSON, or is nested too deep.
    """
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        return parse_json(value, DataError, where)
    return value


def without_unset(value: Any) -> Any:
    """Remove nulls at any depth: tables fill them in for fields that only other rows have."""
    if isinstance(value, Mapping):
        return {key: without_unset(item) for key, item in value.items() if item is not None}
    return [without_unset(item) for item in value] if isinstance(value, list) else value

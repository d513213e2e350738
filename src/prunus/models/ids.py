"""Renumbers the token ids in a model's configs for a smaller vocabulary."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from prunus.errors import ModelError

_IDS = re.compile(r"(.*_)?token_id")
_FORCED = ("force_words_ids", "forced_decoder_ids")


def renumber(config: Mapping[str, Any], new: Mapping[int, int], where: str) -> dict[str, Any]:
    """A copy of a config with all token ids renumbered: `eos_token_id` and the like, and lists of ids.

    Entries about dropped tokens are removed: the student cannot generate them.

    Args:
        config: The contents of config.json, generation_config.json or tokenizer_config.json.
        new: Maps each kept token's id to its id in the student.
        where: The file, for the message.

    Raises:
        ModelError: A list does not have the form that transformers expects.
    """
    result = dict(config)
    for key, value in config.items():
        if key == "added_tokens_decoder" and isinstance(value, Mapping):
            result[key] = {str(new[int(i)]): token for i, token in value.items() if int(i) in new}
        elif _IDS.fullmatch(key):
            result[key] = [new[i] for i in value if i in new] if isinstance(value, list) else new.get(value)
        elif key in _LISTS and isinstance(value, list):
            try:
                result[key] = _LISTS[key](value, new) or None  # transformers refuses empty ones
            except (TypeError, ValueError):
                raise ModelError(f"{where}: {key} is {value!r:.80}; expected lists of token ids") from None
    return result


def required_ids(config: Mapping[str, Any]) -> set[int]:
    """The token ids in a config that must be kept: BOS, EOS and the like, and those that generation must produce."""
    ids: set[int] = set()
    for key, value in config.items():
        if _IDS.fullmatch(key) or key in _FORCED:
            ids |= _flat(value)
    return {i for i in ids if i >= 0}


def _flat(value: Any) -> set[int]:
    """All integers in nested lists."""
    if isinstance(value, list):
        return {i for part in value for i in _flat(part)}
    return {value} if type(value) is int else set()


def _single(ids: list[Any], new: Mapping[int, int]) -> list[Any]:
    """Renumber a list of ids."""
    return [new[i] for i in ids if i in new]


def _sequences(sequences: list[Any], new: Mapping[int, int]) -> list[Any]:
    """Renumber lists of ids, or lists of such lists; sequences with a dropped token are removed."""
    kept = []
    for part in sequences:
        if part and isinstance(part[0], list):
            kept.append(_sequences(part, new))
        elif all(i in new for i in part):
            kept.append([new[i] for i in part])
    return kept


def _at_positions(pairs: list[Any], new: Mapping[int, int]) -> list[Any]:
    """Renumber pairs of a position and an id."""
    return [[position, new[i]] for position, i in pairs if i in new]


def _with_bias(pairs: list[Any], new: Mapping[int, int]) -> list[Any]:
    """Renumber pairs of a sequence and its bias."""
    return [[[new[i] for i in ids], bias] for ids, bias in pairs if all(i in new for i in ids)]


_LISTS: Mapping[str, Callable[[list[Any], Mapping[int, int]], list[Any]]] = {
    "suppress_tokens": _single,
    "begin_suppress_tokens": _single,
    "bad_words_ids": _sequences,
    "force_words_ids": _sequences,
    "forced_decoder_ids": _at_positions,
    "sequence_bias": _with_bias,
}
"""The lists of ids that a generation config may hold, and how each is renumbered."""

"""Whether models can be merged: they need equal weight shapes, settings, tokens and chat templates."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prunus.errors import ModelError
from prunus.fingerprint import fingerprint_files
from prunus.models.folder import TOKENIZER, ModelFolder, matching

_SHOWN = 8


def check_mergeable(models: Sequence[ModelFolder], base: ModelFolder | None, where: str) -> list[str]:
    """Refuse models that differ in more than the values of their weights.

    Settings are compared by their effect, not by their spelling. The base may have another chat template or none; the
    merged model has the first model's. The same holds for the maximum context, if no value is computed from it.

    Args:
        models: The models to merge.
        base: Their common ancestor, if the method needs one.
        where: The name of the option, for messages.

    Returns:
        A line for each allowed difference, with the merged model's value.

    Raises:
        ModelError: Names every differing weight (missing in one, or of another shape), setting, token or template.
    """
    first, *others = models
    first.check()
    notes = []
    for other in [*others, *([base] if base is not None else [])]:
        other.check()
        pair = f"{where}: {other.path} and {first.path} cannot be merged"
        faults = different_weights(first, other) or different_settings(first, other)
        faults = faults or different_tokens(first.path, other.path)
        if other is not base:
            faults = faults or different_templates(first.path, other.path)
        if faults:
            more = f"\n  and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
            raise ModelError(f"{pair}:" + "".join(f"\n  {fault}" for fault in faults[:_SHOWN]) + more)
        if other.context != first.context:
            notes.append(
                f"max_position_embeddings: {other.context} in {other.path}, {first.context} in {first.path}; the "
                f"merged model has {first.context}, like the first"
            )
    return notes


def different_weights(first: ModelFolder, other: ModelFolder) -> list[str]:
    """A line for every weight that is missing in one model or has different shapes."""
    mine, theirs = first.weights, other.weights
    if first.family != other.family:
        return [f"one is a {other.family.name}, the other a {first.family.name}"]
    lines = []
    for name in [*mine, *(name for name in theirs if name not in mine)]:
        here, there = (list(weights[name].shape) if name in weights else "missing" for weights in (mine, theirs))
        if here != there:
            lines.append(f"{name}: {there} and {here}")
    return lines


def different_settings(first: ModelFolder, other: ModelFolder) -> list[str]:
    """A line for every differing setting of config.json that affects what the weights compute."""
    from prunus.steps.merge.settings import effective_settings  # imports torch

    mine, theirs = effective_settings(first), effective_settings(other)
    return [
        f"config.json: {key}: {theirs.get(key)!r} and {mine.get(key)!r}"
        for key in sorted(mine.keys() | theirs.keys())
        if mine.get(key) != theirs.get(key)
    ]


def different_tokens(first: Path, other: Path) -> list[str]:
    """A line for every token with different ids, or for other differences of the tokenizers."""
    if not all((folder / "tokenizer.json").is_file() for folder in (first, other)):
        kinds = [pattern for pattern in TOKENIZER if not pattern.startswith(("tokenizer*", "chat_template", "special"))]
        marks = [fingerprint_files(matching(folder, (*kinds, "tokenizer.json"))) for folder in (first, other)]
        return [] if marks[0] == marks[1] else ["their tokenizers' files differ"]
    from prunus.models.pretrained import load_tokenizer  # imports transformers

    mine, theirs = (json.loads(load_tokenizer(folder).backend_tokenizer.to_str()) for folder in (first, other))
    here, there = _numbered(mine), _numbered(theirs)
    lines = [
        f"token {token!r}: {there.get(token, 'missing')} and {here.get(token, 'missing')}"
        for token in [*here, *(token for token in there if token not in here)]
        if here.get(token) != there.get(token)
    ]
    parts = ("normalizer", "pre_tokenizer", "decoder")
    lines += [
        f"tokenizer.json: {part} differs"
        for part in parts
        if _without_offsets(mine[part]) != _without_offsets(theirs[part])
    ]
    same_merges = mine["model"].get("merges") == theirs["model"].get("merges")
    return lines or ([] if same_merges else ["tokenizer.json: model.merges differs"])


def different_templates(first: Path, other: Path) -> list[str]:
    """A line for every chat template, by name, that differs."""
    mine, theirs = (_templates(folder) for folder in (first, other))
    names = [name for name in sorted(mine.keys() | theirs.keys()) if mine.get(name) != theirs.get(name)]
    return [
        f"their chat templates differ ({name}); give both the same (chat_template.jinja), or align one with the other's"
        for name in names
    ]


def _templates(folder: Path) -> dict[str, str]:
    from prunus.models.pretrained import chat_templates, load_tokenizer  # imports transformers

    return chat_templates(load_tokenizer(folder)) if matching(folder, TOKENIZER) else {}


def _without_offsets(part: Any) -> Any:
    """A part of a tokenizer without `trim_offsets`, which changes reported offsets but not the tokens."""
    if isinstance(part, dict):
        return {key: _without_offsets(value) for key, value in part.items() if key != "trim_offsets"}
    return [_without_offsets(item) for item in part] if isinstance(part, list) else part


def _numbered(tokenizer: Mapping[str, Any]) -> dict[str, int]:
    """The id of every token."""
    vocabulary = tokenizer["model"]["vocab"]
    numbered = dict(vocabulary) if isinstance(vocabulary, dict) else {token[0]: i for i, token in enumerate(vocabulary)}
    return {**numbered, **{one["content"]: one["id"] for one in tokenizer["added_tokens"]}}

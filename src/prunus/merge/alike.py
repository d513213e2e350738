"""Whether models can be merged at all: the same weights, the same settings, the same tokens, the same template."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prunus.errors import ModelError
from prunus.fingerprint import fingerprint_files
from prunus.models.folder import TOKENIZER, ModelFolder, matching

_SHOWN = 8
_NO_MATTER = (
    "_name_or_path", "architectures", "bos_token_id", "dtype", "eos_token_id", "pad_token_id", "torch_dtype",
    "transformers_version", "use_cache",
)  # fmt: skip


def check_alike(models: Sequence[ModelFolder], base: ModelFolder | None, where: str) -> None:
    """Refuse models that differ in more than the values of their weights.

    The base may have another chat template, or none: what is merged speaks by the first model's.

    Args:
        models: What is to be merged.
        base: What they descend from, if it is asked for.
        where: The option's path, for messages.

    Raises:
        ModelError: Names every weight that only one of two models has or that has another shape there, the setting, the
            tokens, or the template.
    """
    first, *others = models
    first.check()
    for other in [*others, *([base] if base is not None else [])]:
        other.check()
        pair = f"{where}: {other.path} and {first.path} cannot be merged"
        faults = different_weights(first, other) or different_settings(first.config, other.config)
        faults = faults or different_tokens(first.path, other.path)
        if other is not base and not faults and chat_template(first.path) != chat_template(other.path):
            faults = [
                "their chat templates differ; give both the same (chat_template.jinja), or align one by the other's"
            ]
        if faults:
            more = f"\n  and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
            raise ModelError(f"{pair}:" + "".join(f"\n  {fault}" for fault in faults[:_SHOWN]) + more)


def different_weights(first: ModelFolder, other: ModelFolder) -> list[str]:
    """A line for every weight that the two do not both have in one shape."""
    mine, theirs = first.weights, other.weights
    if first.family != other.family:
        return [f"one is a {other.family.name}, the other a {first.family.name}"]
    lines = []
    for name in [*mine, *(name for name in theirs if name not in mine)]:
        here, there = (list(found[name].shape) if name in found else "not there" for found in (mine, theirs))
        if here != there:
            lines.append(f"{name}: {there} and {here}")
    return lines


def different_settings(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """A line for every setting of config.json that both name and that decides what weights mean."""
    return [
        f"config.json: {key}: {other[key]!r} and {first[key]!r}"
        for key in sorted(first.keys() & other.keys())
        if first[key] != other[key] and key not in _NO_MATTER
    ]


def different_tokens(first: Path, other: Path) -> list[str]:
    """A line for every token that the two number differently, or for what else their tokenizers differ in."""
    files = [folder / "tokenizer.json" for folder in (first, other)]
    if not all(file.is_file() for file in files):
        kinds = [pattern for pattern in TOKENIZER if not pattern.startswith(("tokenizer*", "chat_template", "special"))]
        marks = [fingerprint_files(matching(folder, (*kinds, "tokenizer.json"))) for folder in (first, other)]
        return [] if marks[0] == marks[1] else ["their tokenizers' files differ"]
    mine, theirs = (json.loads(file.read_text(encoding="utf-8")) for file in files)
    here, there = _numbered(mine), _numbered(theirs)
    lines = [
        f"token {token!r}: {there.get(token, 'not there')} and {here.get(token, 'not there')}"
        for token in [*here, *(token for token in there if token not in here)]
        if here.get(token) != there.get(token)
    ]
    parts = ("normalizer", "pre_tokenizer", "decoder")
    lines += [f"tokenizer.json: {part} differs" for part in parts if mine.get(part) != theirs.get(part)]
    same_merges = (mine.get("model") or {}).get("merges") == (theirs.get("model") or {}).get("merges")
    return lines or ([] if same_merges else ["tokenizer.json: model.merges differs"])


def chat_template(folder: Path) -> Any:
    """The chat template of a folder's tokenizer, or None."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    config = folder / "tokenizer_config.json"
    return json.loads(config.read_text(encoding="utf-8")).get("chat_template") if config.is_file() else None


def _numbered(tokenizer: Mapping[str, Any]) -> dict[str, int]:
    """Every token with its number."""
    vocabulary = (tokenizer.get("model") or {}).get("vocab") or {}
    numbered = dict(vocabulary) if isinstance(vocabulary, dict) else {token[0]: i for i, token in enumerate(vocabulary)}
    return {**numbered, **{one["content"]: one["id"] for one in tokenizer.get("added_tokens") or ()}}

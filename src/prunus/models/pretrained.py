"""Configs and tokenizers as transformers loads them from a folder; it does not need torch for that."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig

from prunus.errors import ModelError
from prunus.models.token_rows import guarded


def load_config(folder: Path) -> PreTrainedConfig:
    """Load a config.json with transformers' defaults filled in.

    Raises:
        ModelError: Transformers refuses it.
    """
    result = load_part(AutoConfig, folder, "its config.json")
    assert isinstance(result, PreTrainedConfig)
    return result


def load_tokenizer(folder: Path) -> Any:
    """Load a tokenizer, which refuses text with tokens that have no row in the model's embedding.

    Raises:
        ModelError: Transformers refuses it.
    """
    return guarded(load_part(AutoTokenizer, folder, "its tokenizer"), folder)


def load_part(kind: Any, folder: Path, what: str, **options: Any) -> Any:
    """Load from a folder with one of transformers' Auto classes, without running code in the folder.

    Args:
        kind: The class.
        folder: The folder.
        what: What is loaded, for the message.
        options: Arguments of `from_pretrained`.

    Raises:
        ModelError: Transformers refuses it.
    """
    try:
        return kind.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **options)
    except Exception as error:  # transformers raises many types
        raise ModelError(f"{folder}: transformers does not load {what}: {type(error).__name__}: {error}") from None


def chat_templates(tokenizer: Any) -> dict[str, str]:
    """The chat templates of a tokenizer by name; a single one is `default`."""
    templates = tokenizer.chat_template
    if templates is None:
        return {}
    return dict(templates) if isinstance(templates, Mapping) else {"default": str(templates)}

"""The small files of a folder: config.json, and the tokenizer's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prunus.errors import ModelError
from prunus.files import replace_json, replace_text
from prunus.models.folder import write_config
from prunus.steps.unpack.tokenizer import Read

_ROLES = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}


def full_config(config: dict[str, Any], read: Read, dtype: str) -> dict[str, Any]:
    """A config.json with the dtype of the weights and the ids of special tokens, null if there is none.

    Without null, transformers would use default ids, which may be beyond the embedding.
    """
    numbers = read.special.numbers
    ids = {f"{role}_token_id": numbers.get(name) for role, name in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))}
    return {**config, **ids, "dtype": dtype}


def write_files(folder: Path, config: dict[str, Any], read: Read, suppressed: list[int]) -> None:
    """Write config.json, tokenizer.json, tokenizer_config.json, chat_template.jinja and generation_config.json.

    Args:
        folder: The output folder.
        config: The contents of config.json.
        read: The tokenizer.
        suppressed: Tokens that are never generated.

    Raises:
        ModelError: The `tokenizers` library rejects the tokenizer.
    """
    write_config(folder, config)
    text = json.dumps(read.json, ensure_ascii=False)
    _check_loads(text)
    replace_text(folder / "tokenizer.json", text)
    context = config.get("max_position_embeddings", config.get("n_positions"))
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # follows tokenizer.json, unlike a family's class
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        **{role: read.tokens[n] for name, role in _ROLES.items() if (n := read.special.numbers.get(name)) is not None},
    }
    templates = read.special.templates
    if set(templates) - {"default"}:  # several templates are stored by name in one list
        settings["chat_template"] = [{"name": name, "template": text} for name, text in templates.items()]
    elif templates:
        replace_text(folder / "chat_template.jinja", templates["default"])
    replace_json(folder / "tokenizer_config.json", settings)
    generation: dict[str, Any] = {
        "bos_token_id": config["bos_token_id"],
        "eos_token_id": list(read.special.ends) or None,
        "pad_token_id": config["pad_token_id"],
    }
    if suppressed:
        generation["suppress_tokens"] = suppressed
    replace_json(
        folder / "generation_config.json", {key: value for key, value in generation.items() if value is not None}
    )


def _check_loads(text: str) -> None:
    from tokenizers import Tokenizer

    try:
        Tokenizer.from_str(text)
    except Exception as error:  # its parser raises various types
        raise ModelError(f"its tokenizer cannot be written as a tokenizer.json: {error}") from None

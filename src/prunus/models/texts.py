"""Reading the text files of a model folder; errors name a file that transformers cannot read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prunus.errors import ModelError
from prunus.files import LFS_POINTER, read_object

_BOM = b"\xef\xbb\xbf"
_POINTER_BYTES = 1024  # a pointer of git-lfs is three lines


def read_model_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file of a model folder.

    Raises:
        ModelError: The file cannot be read, is empty, a git-lfs pointer, not UTF-8, not JSON, not an object, or nested
            too deeply; or it begins with a byte order mark, which transformers does not accept.
    """
    value = read_object(file, ModelError)
    with file.open("rb") as handle:
        start = handle.read(len(_BOM))
    if start == _BOM:
        raise ModelError(f"{file}: begins with a byte order mark, which transformers does not read; save without it")
    return value


def read_optional_json(file: Path) -> dict[str, Any]:
    """As `read_model_json`; an empty object if the file does not exist."""
    return read_model_json(file) if file.is_file() else {}


def read_tokenizer_json(file: Path) -> dict[str, Any]:
    """The contents of a tokenizer.json, with the model's `type` and `added_tokens` filled in.

    Older files, such as GPT-2's, have no type; then a model with merges is BPE, and one with `unk_id` is Unigram.

    Raises:
        ModelError: As `read_model_json`, or there is no model with a vocabulary.
    """
    tokenizer = read_model_json(file)
    model = tokenizer.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict | list):
        raise ModelError(f"{file}: not a tokenizer: `model` is {model!r:.80}; expected an object with a `vocab`")
    if model.get("type") is None:
        kinds = {"merges": "BPE", "unk_id": "Unigram", "max_input_chars_per_word": "WordPiece"}
        model["type"] = next((kind for key, kind in kinds.items() if key in model), "WordLevel")
    tokenizer["added_tokens"] = tokenizer.get("added_tokens") or []
    return tokenizer


def is_pointer(file: Path) -> bool:
    """Whether a file is a git-lfs pointer instead of its contents."""
    with file.open("rb") as handle:
        return handle.read(_POINTER_BYTES).startswith(LFS_POINTER.encode())


def check_text(file: Path) -> None:
    """Refuse a tokenizer or settings file that is obviously broken.

    Raises:
        ModelError: As `read_model_json`; or it is empty, or a git-lfs pointer.
    """
    if file.suffix == ".json":
        read_model_json(file)
    elif file.stat().st_size == 0:
        raise ModelError(f"{file}: the file is empty")
    elif is_pointer(file):
        raise ModelError(f"{file}: a git-lfs pointer, not the file itself; run `git lfs pull` in that folder")

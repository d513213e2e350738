"""Tokens without a row in the embedding: added to the tokenizer without resizing the model.

Frameworks read beyond the table, or fail with an index error. Here text with such a token is refused, and the error
names the token; a token that no text uses does no harm.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prunus.errors import DataError, ModelError
from prunus.files import read_object


def guarded(tokenizer: Any, folder: Path) -> Any:
    """The tokenizer, made to refuse text with tokens beyond the embedding of the model in `folder`, if it has any."""
    rows = rows_of(folder)
    if rows is None or max(tokenizer.get_vocab().values(), default=-1) < rows:
        return tokenizer
    kind = type(tokenizer)

    class Guarded(kind):  # type: ignore[misc, valid-type]
        """The tokenizer's class, with checked ids."""

        def __call__(self, *args: Any, **options: Any) -> Any:
            result = super().__call__(*args, **options)
            check_ids(result["input_ids"], self, folder)
            return result

        def encode(self, *args: Any, **options: Any) -> Any:
            result = super().encode(*args, **options)
            check_ids(result, self, folder)
            return result

    Guarded.__name__, Guarded.__qualname__, Guarded.__module__ = kind.__name__, kind.__qualname__, kind.__module__
    tokenizer.__class__ = Guarded  # so that other code, such as lm-evaluation-harness, can use it as before
    return tokenizer


def check_ids(ids: Any, tokenizer: Any, folder: Path) -> None:
    """Refuse ids without a row in the embedding of the model in `folder`.

    Args:
        ids: A list or tensor of any depth.
        tokenizer: The tokenizer.
        folder: The model's folder.

    Raises:
        DataError: The message names the token, its id, and the number of rows.
    """
    rows = rows_of(folder)
    for token in _flat(ids):
        if rows is not None and token >= rows:
            raise DataError(
                f"the token {tokenizer.convert_ids_to_tokens(token)!r} has the id {token}, and the embedding of "
                f"{folder} has {rows} rows (vocab_size in config.json): the token was added to the tokenizer "
                "without resizing the model; resize it, or use text, template and end tokens without that token"
            )


def rows_of(folder: Path) -> int | None:
    """The rows of a model's embedding, from its config.json; None if that is missing or does not say."""
    file = folder / "config.json"
    rows = read_object(file, ModelError).get("vocab_size") if file.is_file() else None
    return rows if isinstance(rows, int) else None


def _flat(ids: Any) -> Iterator[int]:
    for item in ids.tolist() if hasattr(ids, "tolist") else ids:
        if isinstance(item, int):
            yield item
        else:
            yield from _flat(item)

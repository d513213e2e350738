"""Tokens that a tokenizer knows and the embedding has no row for: added to the tokenizer, the model never resized.

Frameworks read what lies behind the table, or end with an index error. Here text that needs such a token is refused, by
name; a token that no text uses does no harm.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prunus.errors import DataError, ModelError
from prunus.files import read_object


def guarded(tokenizer: Any, folder: Path) -> Any:
    """The tokenizer, which refuses text with tokens beyond the embedding of the model in `folder`, if it knows any."""
    rows = rows_of(folder)
    if rows is None or max(tokenizer.get_vocab().values(), default=-1) < rows:
        return tokenizer
    kind = type(tokenizer)

    class Guarded(kind):  # type: ignore[misc, valid-type]
        """What the tokenizer is, with its ids looked at."""

        def __call__(self, *args: Any, **options: Any) -> Any:
            found = super().__call__(*args, **options)
            check_ids(found["input_ids"], self, folder)
            return found

        def encode(self, *args: Any, **options: Any) -> Any:
            found = super().encode(*args, **options)
            check_ids(found, self, folder)
            return found

    Guarded.__name__, Guarded.__qualname__, Guarded.__module__ = kind.__name__, kind.__qualname__, kind.__module__
    tokenizer.__class__ = Guarded  # whoever is handed it, lm-evaluation-harness too, calls it as any other
    return tokenizer


def check_ids(ids: Any, tokenizer: Any, folder: Path) -> None:
    """Refuse ids that the embedding of the model in `folder` has no row for.

    Args:
        ids: In a list or a tensor, of any depth.
        tokenizer: What they are of.
        folder: The model.

    Raises:
        DataError: Names the token, its id, and the rows.
    """
    rows = rows_of(folder)
    for found in _flat(ids):
        if rows is not None and found >= rows:
            raise DataError(
                f"the token {tokenizer.convert_ids_to_tokens(found)!r} has the id {found}, and the embedding of "
                f"{folder} has {rows} rows (vocab_size in config.json): the token was added to the tokenizer, and "
                "the model never resized; resize it, or use text, a template and ends without that token"
            )


def rows_of(folder: Path) -> int | None:
    """The rows of a model's embedding, by its config.json, if that is there and says so."""
    file = folder / "config.json"
    rows = read_object(file, ModelError).get("vocab_size") if file.is_file() else None
    return rows if isinstance(rows, int) else None


def _flat(ids: Any) -> Iterator[int]:
    for item in ids.tolist() if hasattr(ids, "tolist") else ids:
        if isinstance(item, int):
            yield item
        else:
            yield from _flat(item)

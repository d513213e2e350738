"""Which column of a row of chat data is read as what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunus.errors import DataError, nearest

COLUMNS = {
    "messages": ("messages", "conversations", "conversation"),
    "prompt": ("prompt", "instruction", "question", "query"),
    "input": ("input", "context"),
    "completion": ("completion", "response", "output", "answer"),
    "history": ("history",),
    "system": ("system", "system_prompt"),
    "tools": ("tools", "functions"),
    "chosen": ("chosen", "chosen_response", "response_chosen"),
    "rejected": ("rejected", "rejected_response", "response_rejected"),
    "chosen_reward": ("chosen_reward", "reward_chosen", "chosen_score", "score_chosen", "chosen_rating"),
    "rejected_reward": ("rejected_reward", "reward_rejected", "rejected_score", "score_rejected", "rejected_rating"),
    "label": ("label", "kto_tag"),
    "attributes": ("attributes",),
    "check": ("check",),
    "text": ("text", "transcript", "dialogue"),
}
"""What is read of a row, and the names that it goes by."""


class Columns:
    """The columns of a row by what they are read as. It notes which are read.

    Args:
        row: The row.
        columns: Names by what they are read as, where they are none of `COLUMNS`.
        where: Which row it is, for messages.

    Raises:
        DataError: `columns` names a column that is not there, or something that is not read of a row.
    """

    def __init__(self, row: Mapping[str, Any], columns: Mapping[str, str], where: str) -> None:
        self.row, self.columns, self.where = row, columns, where
        self._read: set[str] = set()
        for wanted, name in columns.items():
            if wanted not in COLUMNS:
                raise DataError(f"{where}: columns.{wanted}{nearest(wanted, COLUMNS)}; known: {', '.join(COLUMNS)}")
            if name not in row:
                raise DataError(
                    f"{where}: no column {name!r} for {wanted}{nearest(name, row)}; it has: {', '.join(row)}"
                )

    def has(self, wanted: str) -> bool:
        """Whether there is one that is set."""
        return any(self.row.get(name) is not None for name in self._names(wanted))

    def take(self, wanted: str) -> Any:
        """What is read as `wanted`; None if it is not set.

        Raises:
            DataError: Two columns could be it and differ.
        """
        set_ = [name for name in self._names(wanted) if self.row.get(name) is not None]
        filled = [name for name in set_ if self.row[name] not in ("", [])] or set_[:1]
        if any(self.row[name] != self.row[filled[0]] for name in filled[1:]):
            raise DataError(
                f"{self.where}: {' and '.join(filled)} could both be the {wanted}, and differ; "
                f"`columns: {{{wanted}: {filled[0]}}}` says which is read"
            )
        self._read.update(set_)
        return self.row[filled[0]] if filled else None

    def unread(self) -> tuple[str, ...]:
        """The columns that hold something and that nothing has read."""
        return tuple(
            str(name) for name, value in self.row.items() if name not in self._read and value not in (None, "", [], {})
        )

    def _names(self, wanted: str) -> tuple[str, ...]:
        """The columns that may be `wanted`; one that is named as something else is no longer it."""
        if wanted in self.columns:
            return (self.columns[wanted],)
        return tuple(name for name in COLUMNS[wanted] if name not in self.columns.values())

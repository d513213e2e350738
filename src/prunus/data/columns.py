"""The roles of columns in rows of chat data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunus.errors import DataError, among

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
"""The roles of columns, and the column names that are recognised for each."""


class Columns:
    """The columns of a row by role; keeps track of which were read.

    Args:
        row: The row.
        columns: Column names that differ from `COLUMNS`, by role.
        where: The row's name in messages.

    Raises:
        DataError: `columns` names a column that does not exist, or an unknown role.
    """

    def __init__(self, row: Mapping[str, Any], columns: Mapping[str, str], where: str) -> None:
        self.row, self.columns, self.where = row, columns, where
        self._read: set[str] = set()
        for role, name in columns.items():
            if role not in COLUMNS:
                raise DataError(f"{where}: columns.{role}{among(role, COLUMNS)}")
            if name not in row:
                raise DataError(f"{where}: no column {name!r} for {role}{among(name, row, 'it has')}")

    def has(self, role: str) -> bool:
        """Whether a column with that role is set."""
        return any(self.row.get(name) is not None for name in self._names(role))

    def take(self, role: str) -> Any:
        """The value of the column with that role; None if it is not set.

        Raises:
            DataError: Two columns with that role are set and differ.
        """
        set_ = [name for name in self._names(role) if self.row.get(name) is not None]
        filled = [name for name in set_ if self.row[name] not in ("", [])] or set_[:1]
        if any(self.row[name] != self.row[filled[0]] for name in filled[1:]):
            raise DataError(
                f"{self.where}: {' and '.join(filled)} could both be the {role}, and differ; "
                f"choose one by `columns: {{{role}: {filled[0]}}}`"
            )
        self._read.update(set_)
        return self.row[filled[0]] if filled else None

    def unread(self) -> tuple[str, ...]:
        """The columns that are not empty and were not read."""
        return tuple(
            str(name) for name, value in self.row.items() if name not in self._read and value not in (None, "", [], {})
        )

    def _names(self, role: str) -> tuple[str, ...]:
        """The columns that may have a role; one that `columns` gives another role is left out."""
        if role in self.columns:
            return (self.columns[role],)
        return tuple(name for name in COLUMNS[role] if name not in self.columns.values())

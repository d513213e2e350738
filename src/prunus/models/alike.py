"""Checkpoints of an unknown type read by the table of a family; which tables fit one, by headers alone."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from prunus.errors import ModelError
from prunus.models.families.family import Family
from prunus.models.families.table import FAMILIES
from prunus.models.folder import ModelFolder
from prunus.models.settings import check_settings


@dataclass(frozen=True)
class FolderAs(ModelFolder):
    """A folder read by the table of a family, whatever its `model_type`."""

    table: Family

    @property
    def family(self) -> Family:
        """The family."""
        return self.table

    def check(self) -> None:
        """As for any folder; also refuses settings that the family does not have."""
        check_settings(self.config, self.table, str(self.path))
        super().check()


def families_that_fit(folder: ModelFolder) -> list[Family]:
    """The families whose tables name all weights of a checkpoint, with the shapes that its config implies."""
    found = []
    for family in FAMILIES.values():
        with suppress(ModelError, KeyError, TypeError):  # a config of another type may lack any key
            FolderAs(folder.path, family).check()
            found.append(family)
    return found

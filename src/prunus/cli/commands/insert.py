"""The command `insert`: put a student of a text model back into a model of several parts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from prunus.cli.base import Flat, Single, located
from prunus.console import Console
from prunus.graph.steps import Step, given_model
from prunus.pipeline.extracting import locate_whole
from prunus.steps.insert.config import InsertConfig


@dataclass(kw_only=True)
class Insert(Single):
    """Put a student of a text model back into the model of several parts that the text model was taken from."""

    student: Annotated[Positional[str], arg(metavar="STUDENT")]
    """Folder of the student."""
    into: str
    """Folder of the whole model, or id on the hub: the one whose text model is the student's teacher."""
    config: Annotated[InsertConfig, Flat]

    def __call__(self, console: Console) -> None:
        """Run the step."""
        whole = given_model(locate_whole(self.into, "--into"))
        inputs = {"student": given_model(located(self.student, "STUDENT")), "whole": whole}
        self.do_all([Step("insert", "insert", self.config, inputs, Path(self.out).parent)], console)

"""The command `extract`: write the text model inside a model of several parts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from prunus.cli.base import Flat, Single
from prunus.console import Console
from prunus.graph.steps import Step, given_model
from prunus.pipeline.extracting import locate_whole
from prunus.steps.extract.config import ExtractConfig


@dataclass(kw_only=True)
class Extract(Single):
    """Write the text model inside a model of several parts, such as one for vision and language, as a plain folder."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """Folder of the model, or id on the hub."""
    config: Annotated[ExtractConfig, Flat]

    def __call__(self, console: Console) -> None:
        """Run the step."""
        whole = given_model(locate_whole(self.model, "MODEL"))
        self.do_all([Step("extract", "extract", self.config, {"whole": whole}, Path(self.out).parent)], console)

"""The command `convert`: convert a GGUF file to a Hugging Face folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from prunus.cli.base import Flat, Single
from prunus.console import Console
from prunus.pipeline.unpacking import gguf_file, unpacking
from prunus.steps.unpack.config import UnpackConfig
from prunus.training.plan import check_runtime


@dataclass(kw_only=True)
class Convert(Single):
    """Convert a GGUF file to a plain Hugging Face folder, and verify the folder against the file in llama.cpp."""

    file: Annotated[Positional[str], arg(metavar="FILE")]
    """GGUF file; of a split one, the first part."""
    config: Annotated[UnpackConfig, Flat]

    def __call__(self, console: Console) -> None:
        """Run the step."""
        check_runtime(self.runtime, [])
        self.do_all([unpacking(gguf_file(self.file, "FILE"), self.config, Path(self.out))], console)

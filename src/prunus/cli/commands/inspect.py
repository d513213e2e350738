"""The command `inspect`: show a model's shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from prunus.cli.inspection import inspection, show_inspection, suggest_families, try_family
from prunus.console import Console
from prunus.errors import RecipeError
from prunus.llamacpp.reading import read_gguf
from prunus.pipeline.unpacking import ENDING, find_model, gguf_file


@dataclass(kw_only=True)
class Inspect:
    """Show a model's shape, parameters, bytes, KV cache and FLOPs, from its config and headers alone."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """Model folder, id on the hub, or GGUF file."""
    revision: str | None = None
    """Commit on the hub."""
    context: int | None = None
    """Context length to count FLOPs at, in tokens. If unset: 4096, or the model's maximum if that is less."""
    json: bool = False
    """Print JSON."""
    family: str | None = None
    """For a model of a type without a family: the `model_type` of a family whose table to try. It is checked on the
    model's first layers; if it cuts them exactly, models of this type are cut by it from then on, on this machine."""

    def __call__(self, console: Console) -> None:
        """Read config and headers, and print the figures."""
        if self.context is not None and self.context < 1:
            raise RecipeError(f"--context: {self.context}; expected 1 or more")
        folder = find_model(self.model, self.revision, "MODEL", weights=self.family is not None).folder
        if self.family is not None:
            try_family(folder, self.family, Console(quiet=True) if self.json else console)
        suggest_families(self.model, folder)
        file = read_gguf(gguf_file(self.model, "MODEL")) if self.model.endswith(ENDING) else None
        facts = inspection(folder, self.context, file)
        show_inspection(self.model, file.path if file else folder.path, facts, self.json, console)

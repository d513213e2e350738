"""The command `export`: write a model as files that run on a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from prunus.cli.base import Flat, Single, Text, located
from prunus.console import Console
from prunus.errors import RecipeError
from prunus.graph.steps import Given, Step, given_model
from prunus.steps.export.config import ExportConfig
from prunus.steps.export.plan import check_export, given_matrix


@dataclass(kw_only=True)
class Export(Single):
    """Export a model to files that run on a device (GGUF, ONNX, torchao), and verify each against the model."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """Model folder, id on the hub, or GGUF file."""
    corpus: tuple[str, ...] = ()
    """Held-out text to compare files and model on. If unset: random tokens."""
    calibration: tuple[str, ...] = ()
    """Text to measure the importance matrix on (`--imatrix`): another than `--corpus`."""
    column: str = "text"
    """Column that holds the text."""
    config: Annotated[ExportConfig, Flat]

    def __call__(self, console: Console) -> None:
        """Run the step."""
        if not self.config.formats:
            raise RecipeError("--formats: empty; give at least one, such as --formats gguf-q4_k_m")
        if self.config.imatrix != bool(self.calibration):
            raise RecipeError(
                "--imatrix and --calibration: one without the other; allowed: both, or --imatrix-file FILE"
            )
        model = located(self.model)
        check_export(self.config, model.folder.config, model.folder.path, {"--formats": model.folder.shape})
        inputs: dict[str, Step | Given] = {"model": given_model(model)}
        if self.corpus:
            inputs["tokens"] = Text(corpus=self.corpus, column=self.column).stream(model, "held_out", self.out)
        if self.calibration:
            text = Text(corpus=self.calibration, column=self.column)
            inputs["calibration"] = text.stream(model, "calibration", self.out)
        inputs |= given_matrix(self.config)
        self.do(self.config, inputs, console)

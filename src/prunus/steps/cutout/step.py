"""The `cutout` step: one size of a nest as a plain model folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prunus.console import Console, human
from prunus.models.between import between, norms_between
from prunus.models.folder import ModelFolder
from prunus.models.load import device_of, inference_dtype, load_model
from prunus.models.nest import read_nest, write_size
from prunus.runtime import Runtime
from prunus.steps.cutout.config import CutoutConfig


@dataclass(frozen=True)
class Inputs:
    """The folder of the nest."""

    model: Path


def run(config: CutoutConfig, inputs: Inputs, out: Path, runtime: Runtime, console: Console) -> dict[str, float]:
    """Write the size to `out`, with its lineage.

    Returns:
        Its parameters, total and non-embedding.

    Raises:
        ModelError: The folder is no nest, or is damaged.
        ShapeError: The nest has no such size, and the shape is not between those that it has.
        ArtifactError: The disk is too full.
    """
    nest = read_nest(inputs.model)
    nest.folder.check()
    size = between(nest, config.target(nest, "cutout"), "cutout")
    write_size(nest, size, norms_between(nest, size), out)
    ModelFolder(out).check()
    device = device_of(runtime)
    load_model(out, device, inference_dtype(runtime, device))  # a final check that transformers loads it
    console.say(f"{size.name}: {human(size.shape.parameters)} parameters")
    return {
        "parameters": size.shape.parameters,
        "non_embedding_parameters": size.shape.non_embedding_parameters,
    }

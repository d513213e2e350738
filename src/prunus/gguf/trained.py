"""The type in a file of each weight of a model that is trained for that file."""

from __future__ import annotations

from prunus.errors import RecipeError
from prunus.gguf.mixtures import QUANTISED, needs_ggml
from prunus.gguf.tensors import FileTensor
from prunus.gguf.writer import format_label, plan_types
from prunus.llamacpp import ggml
from prunus.models.folder import ModelFolder


def trained_types(folder: ModelFolder, format_name: str, where: str) -> dict[str, tuple[FileTensor, int]]:
    """The tensor of the file, and its type, for each weight of a checkpoint by its name there.

    They are those of `write_gguf`. Only headers are read; the folder may be a planned one.

    Args:
        folder: The model.
        format_name: Such as `gguf-q4_0`.
        where: The name of the option, for messages.

    Raises:
        RecipeError: llama.cpp does not support the family or its quantiser is missing, the model is a mixture of
            experts, or the file holds a weight twice, in two types.
    """
    if needs_ggml(format_name) and not ggml.can_quantise():
        allowed = ", ".join(name for name in QUANTISED if not needs_ggml(name))
        raise RecipeError(
            f"{where}: {format_name} needs llama.cpp's quantiser, from xllamacpp (`pip install 'prunus[gguf]'`); "
            f"allowed here: {allowed}"
        )
    if folder.shape.num_experts:
        raise RecipeError(
            f"{where}: {format_name}; not for a mixture of experts, whose experts are no linear modules; allowed: to "
            "leave it out"
        )
    found: dict[str, tuple[FileTensor, int]] = {}
    for tensor, choice in zip(*plan_types(folder, format_name), strict=True):
        for source in tensor.sources:
            other = found.setdefault(source.name, (tensor, choice.kind))
            if other[1] != choice.kind:
                raise RecipeError(
                    f"{where}: {format_name}; the model ties its LM head to the embedding, and a "
                    f"{format_label(format_name)} file of a {folder.family.name} holds them apart, as "
                    f"{ggml.NAMES[other[1]]} and {ggml.NAMES[choice.kind]}; allowed: gguf-q8_0"
                )
    return found

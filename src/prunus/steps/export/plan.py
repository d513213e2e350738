"""Export as a plan sees it: what a format does not have is refused before any work, and what it will cost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunus.costs import Around, Cost
from prunus.errors import ModelError
from prunus.files import read_object
from prunus.llamacpp.ggml import BLOCKS
from prunus.models.shape import Shape
from prunus.steps.create.config import CreateConfig
from prunus.steps.export.config import ExportConfig
from prunus.steps.export.installed import check_formats, check_onnx
from prunus.steps.export.metadata import check_shape
from prunus.steps.export.mixtures import TYPES, bytes_of
from prunus.steps.export.vocabulary import read_vocabulary


def check_export(config: ExportConfig, teacher: Path | CreateConfig | None, shapes: Mapping[str, Shape]) -> None:
    """Refuse formats that are not installed, and families, shapes and tokenizers that a target has not.

    Args:
        config: The options.
        teacher: The folder whose config and tokenizer the students take over, or what makes it; None where the hub has
            it and cannot be reached.
        shapes: What is to be exported, by the option that asks for it.

    Raises:
        RecipeError: Names the option, and what would work.
    """
    check_formats(config.formats, "export.formats")
    if teacher is None:
        return
    raw: dict[str, Any] = (
        teacher.model_config_json()
        if isinstance(teacher, CreateConfig)
        else read_object(teacher / "config.json", ModelError)
    )
    for where, shape in shapes.items():
        if any(name.startswith("onnx-") for name in config.formats):
            check_onnx(shape, where)
        if any(name in TYPES for name in config.formats):
            check_shape(raw, shape, where)
    if any(name in TYPES for name in config.formats) and isinstance(teacher, Path):
        # one that is made has a byte-level tokenizer like GPT-2's
        read_vocabulary(teacher, next(iter(shapes.values())).vocab_size)


def unfitting(config: ExportConfig, name: str, shape: Shape) -> str | None:
    """What a plan says of a student whose rows fit no block of a format, or None."""
    widths = {shape.hidden_size, shape.intermediate_size, shape.num_attention_heads * shape.head_dim}
    for format_name in config.formats:
        block = BLOCKS[TYPES[format_name]][0] if format_name in TYPES else 1
        odd = sorted(width for width in widths if width % block)
        if odd:
            return (
                f"students.{name}: rows of {', '.join(map(str, odd))} fit no block of {format_name} ({block} values); "
                "their tensors are kept in more bits, as llama.cpp does. Multiples of that avoid it"
            )
    return None


def _bytes_of(format_name: str, parameters: int) -> int:
    """About how many bytes a format takes."""
    if format_name in TYPES:
        return bytes_of(format_name, parameters)
    return int(parameters * {"onnx-fp32": 4, "onnx-int4": 0.6, "torchao-int8": 1}[format_name])


def cost(config: ExportConfig, shape: Shape, around: Around) -> Cost:
    """Estimate the export of one model.

    Each file is read by llama.cpp beside transformers in float32; the float32 file is there while it is looked at.
    """
    tokens = config.check_tokens * len({"gguf-f32", *config.formats})
    weights = 4 * shape.parameters
    disk = weights + sum(_bytes_of(name, shape.parameters) for name in config.formats)
    length = min(config.check_length, shape.max_position_embeddings)
    return Cost(tokens, 2.0 * tokens * shape.flops_per_token(length), 2 * weights, disk)

"""Planning of export: formats are checked before any work, and its cost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunus.costs import Cost, CostContext
from prunus.errors import ModelError, RecipeError
from prunus.fingerprint import fingerprint_files
from prunus.gguf.imatrix import Sums, check_imatrix, read_imatrix
from prunus.gguf.mixtures import TYPES
from prunus.gguf.tensors import plan_tensors
from prunus.graph.steps import Given, Step
from prunus.llamacpp import ggml
from prunus.llamacpp.ggml import BLOCKS
from prunus.models.folder import PlannedFolder
from prunus.models.shape import Shape
from prunus.steps.export.config import PROOF_TOKENS, ExportConfig
from prunus.steps.export.targets import FORMATS, TARGETS, by_target, check_formats


def check_export(
    config: ExportConfig, teacher: Mapping[str, Any] | None, tokenizer: Path | None, shapes: Mapping[str, Shape]
) -> None:
    """Refuse formats whose packages are missing, and families, shapes and tokenizers that a target does not support.

    Args:
        config: The options.
        teacher: The config.json that students inherit; None if the hub cannot be reached.
        tokenizer: The folder of the tokenizer that students inherit; None if it does not exist yet, or if Prunus makes
            it (every target supports its tokenizers).
        shapes: The shapes to export, by name of the option.

    Raises:
        RecipeError: Names the option, and what would work.
    """
    check_formats(config.formats, "export.formats")
    if config.weighted and not ggml.can_quantise():
        raise RecipeError(
            "export.imatrix: needs llama.cpp's quantiser, which xllamacpp does not export on this system; allowed "
            "here: to leave it out"
        )
    sums = _read_matrix(config) if config.imatrix_file is not None else None
    if teacher is None:
        return
    targets = [TARGETS[kind] for kind in by_target(config.formats)]
    for where, shape in shapes.items():
        for target in targets:
            target.check(teacher, shape, where)
        if sums is not None:
            tensors = plan_tensors(PlannedFolder(Path(), teacher, shape, "BF16"))
            check_imatrix(sums, tensors, f"export.imatrix_file: {config.imatrix_file}: {where.split(': ')[-1]}")
    if tokenizer is not None:
        for target in targets:
            target.check_tokenizer(tokenizer, next(iter(shapes.values())).vocab_size)


def given_matrix(config: ExportConfig) -> dict[str, Step | Given]:
    """The file of an importance matrix as an input; otherwise empty."""
    if config.imatrix_file is None:
        return {}
    file = _matrix_file(config)
    return {"imatrix": Given(file, fingerprint_files([file]))}


def _read_matrix(config: ExportConfig) -> dict[str, Sums]:
    try:
        return read_imatrix(_matrix_file(config))
    except ModelError as error:
        raise RecipeError(f"export.imatrix_file: {error}") from None


def _matrix_file(config: ExportConfig) -> Path:
    return Path(str(config.imatrix_file)).expanduser()


def block_warning(config: ExportConfig, shape: Shape) -> str | None:
    """A warning if a model's row lengths are no multiples of a format's block, or None."""
    widths = {shape.hidden_size, shape.intermediate_size, shape.num_attention_heads * shape.head_dim}
    for format_name in config.formats:
        block = BLOCKS[TYPES[format_name]][0] if format_name in TYPES else 1
        odd = sorted(width for width in widths if width % block)
        if odd:
            return (
                f"rows of {', '.join(map(str, odd))} are no multiples of the block of {format_name} "
                f"({block} values); as in llama.cpp, these tensors get more bits. Multiples of {block} avoid that"
            )
    return None


def cost(config: ExportConfig, shape: Shape, context: CostContext) -> Cost:
    """Estimate the export of one model.

    All GGUF files are compared with one pass of transformers in float32, after a short proof of a float32 file.
    """
    proof = 2 * PROOF_TOKENS if any(name in TYPES for name in config.formats) else 0
    calibration = config.imatrix_tokens if config.imatrix else 0
    tokens = config.check_tokens * (1 + len(config.formats)) + proof + calibration
    weights = 4 * shape.parameters
    disk = weights + sum(FORMATS[name].nbytes[name](shape.parameters) for name in config.formats)
    length = min(config.check_length, shape.max_position_embeddings)
    return Cost(tokens, tokens * shape.flops_per_token(length), 2 * weights, disk)

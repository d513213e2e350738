"""The `unpack` step: converts a GGUF file to a plain folder, one tensor at a time."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunus.console import Console, human, human_bytes
from prunus.errors import ModelError, RecipeError
from prunus.fingerprint import checksum, digest
from prunus.llamacpp.reading import GgufFile, read_gguf
from prunus.models.checkpoint import TensorPlan, write_tensors
from prunus.models.families.table import family_of
from prunus.models.folder import ModelFolder
from prunus.models.shape import Shape
from prunus.runtime import Runtime
from prunus.steps.unpack.config import UnpackConfig
from prunus.steps.unpack.files import full_config, write_files
from prunus.steps.unpack.origin import origin_of, write_origin
from prunus.steps.unpack.settings import check_kind, settings_of
from prunus.steps.unpack.tensors import dtype_of, plan_weights
from prunus.steps.unpack.tokenizer import Read, read_tokenizer

_SUPPRESSED = "tokenizer.ggml.suppress_tokens"


@dataclass(frozen=True)
class Inputs:
    """The GGUF file; of a split file, the first part."""

    file: Path


@dataclass(frozen=True)
class Unpacked:
    """A file that can be converted, with everything that is known before anything is written.

    Attributes:
        file: Its header.
        config: The config.json.
        shape: The dimensions.
        tokenizer: The tokenizer.
        plans: The weights.
    """

    file: GgufFile
    config: dict[str, Any]
    shape: Shape
    tokenizer: Read
    plans: list[TensorPlan]


def run(config: UnpackConfig, inputs: Inputs, out: Path, runtime: Runtime, console: Console) -> dict[str, float]:
    """Write the folder to `out`, with `gguf.json`, the record of its origin.

    Returns:
        Parameters, bytes of the weights, and figures of the comparison with the file in llama.cpp.

    Raises:
        ModelError: The file cannot be read, or a folder cannot represent it; raised before anything is written.
        ArtifactError: The disk is too full.
        ExportError: The folder does not compute what the file computes.
    """
    source = read_source(inputs.file, config)
    suppressed = [int(number) for number in source.file.keys.get(_SUPPRESSED, []) if number < source.shape.vocab_size]
    write_files(out, source.config, source.tokenizer, suppressed)
    write_origin(out, origin_of(source.file, content_of(source.file)))
    size = sum(plan.nbytes for plan in source.plans)
    metrics: dict[str, float] = {"parameters": source.shape.parameters}
    if not config.weights:
        return metrics
    with console.progress(f"unpack {inputs.file.name}", size, "bytes") as progress:
        write_tensors(out, source.plans, on_progress=progress.update)
    folder = ModelFolder(out)
    folder.check()
    console.say(
        f"{source.shape.family.name}, {human(source.shape.parameters)} parameters in {source.config['dtype']}: "
        f"{human_bytes(size)}"
    )
    metrics["nbytes"] = size
    if config.check:
        metrics |= _checked(inputs.file, folder, source, console)
    return metrics


def read_source(path: Path, config: UnpackConfig) -> Unpacked:
    """Read everything that determines the folder, and refuse files that cannot be converted; nothing is written.

    Raises:
        ModelError: Names the file, and the part that cannot be used.
    """
    file = read_gguf(path)
    check_kind(file)
    settings = settings_of(file)
    family = family_of(settings, str(path))
    shape = Shape.from_config(settings, family, str(path))
    shape.check_loadable(str(path))
    dtype = dtype_of(file, config.dtype)
    plans = plan_weights(file, shape, dtype)
    tokenizer = read_tokenizer(file, shape.vocab_size)
    return Unpacked(file, full_config(settings, tokenizer, dtype), shape, tokenizer, plans)


def content_of(file: GgufFile) -> str:
    """A digest of a file's content, including all parts of a split file."""
    sums = [checksum(part) for part in file.files]
    return sums[0] if len(sums) == 1 else digest(sums)[:32]


def _checked(path: Path, folder: ModelFolder, source: Unpacked, console: Console) -> dict[str, float]:
    if importlib.util.find_spec("xllamacpp") is None:
        console.warn(
            "the folder was not compared with the file: xllamacpp is not installed (`pip install 'prunus[gguf]'`)"
        )
        return {}
    from prunus.steps.unpack.proof import prove_folder

    try:
        return prove_folder(path, folder, source.tokenizer, console)
    except (ModelError, RecipeError) as error:
        raise ModelError(f"{path}: cannot be compared with the folder: {error}; skip this with --no-check") from None

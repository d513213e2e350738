"""The `unpack` step: a GGUF file becomes a plain folder, a tensor at a time."""

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
    """The GGUF file; of a split one the first part."""

    file: Path


@dataclass(frozen=True)
class Understood:
    """A file that can be made a folder of: all that is known before anything is written.

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
    """Write the folder to `out`, with `gguf.json`, which says what file it was made from.

    Returns:
        Parameters, bytes of the weights, and what the comparison with the file in llama.cpp found.

    Raises:
        ModelError: The file cannot be read, or says something that a folder cannot; before anything is written.
        ArtifactError: The disk has no room.
        ExportError: The folder does not say what the file says.
    """
    found = understand(inputs.file, config)
    suppressed = [int(number) for number in found.file.keys.get(_SUPPRESSED, []) if number < found.shape.vocab_size]
    write_files(out, found.config, found.tokenizer, suppressed)
    write_origin(out, origin_of(found.file, content_of(found.file)))
    size = sum(plan.nbytes for plan in found.plans)
    metrics: dict[str, float] = {"parameters": found.shape.parameters}
    if not config.weights:
        return metrics
    with console.progress(f"unpack {inputs.file.name}", size, "bytes") as progress:
        write_tensors(out, found.plans, on_progress=progress.update)
    folder = ModelFolder(out)
    folder.check()
    console.say(
        f"{found.shape.family.name}, {human(found.shape.parameters)} parameters in {found.config['dtype']}: "
        f"{human_bytes(size)}"
    )
    metrics["nbytes"] = size
    if config.check:
        metrics |= _checked(inputs.file, folder, found, console)
    return metrics


def understand(path: Path, config: UnpackConfig) -> Understood:
    """Read all that decides the folder, and refuse what cannot be one; nothing is written.

    Raises:
        ModelError: Names the file, and what of it cannot be used.
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
    return Understood(file, full_config(settings, tokenizer, dtype), shape, tokenizer, plans)


def content_of(file: GgufFile) -> str:
    """A digest of a file's content, of all its parts."""
    sums = [checksum(part) for part in file.files]
    return sums[0] if len(sums) == 1 else digest(sums)[:32]


def _checked(path: Path, folder: ModelFolder, found: Understood, console: Console) -> dict[str, float]:
    if importlib.util.find_spec("xllamacpp") is None:
        console.warn(
            "the folder was not held against the file: xllamacpp is not installed (`pip install 'prunus[gguf]'`)"
        )
        return {}
    from prunus.steps.unpack.proof import prove_folder

    try:
        return prove_folder(path, folder, found.tokenizer, console)
    except (ModelError, RecipeError) as error:
        raise ModelError(f"{path}: cannot be held against the folder: {error}; --no-check leaves that out") from None

"""What `prunus inspect` prints: a model's figures, and the tensors of a GGUF file by format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

from prunus.console import Console
from prunus.errors import ModelError, RecipeError, among
from prunus.llamacpp.parsing import GgufTensor
from prunus.llamacpp.reading import GgufFile
from prunus.models.alike import families_that_fit
from prunus.models.checkpoint import DTYPES, ITEM_BYTES
from prunus.models.families.adopted import adopt, adopted, adopted_file
from prunus.models.families.table import FAMILIES
from prunus.models.folder import ModelFolder
from prunus.models.foreign import describe_unknown
from prunus.models.settings import dtype_name

_CONTEXT = 4096


def inspection(folder: ModelFolder, context: int | None, file: GgufFile | None = None) -> dict[str, Any]:
    """A model's figures, from config and headers.

    Args:
        folder: The model.
        context: The length in tokens to count FLOPs at. None: 4096, or the model's maximum if that is less.
        file: The GGUF file that the folder was unpacked from; bytes are then those in the file.

    Raises:
        ModelError: The config or a header cannot be read.
    """
    shape = folder.shape
    context = context or min(_CONTEXT, folder.context)
    if folder.has_weights:
        folder.check()
    dtype = folder.dtype if folder.has_weights else DTYPES[dtype_name(folder.config) or "float32"]
    width = ITEM_BYTES[dtype]
    return {
        "family": shape.family.name,
        **shape.dimensions(),
        "tie_word_embeddings": shape.flags["tie_word_embeddings"],
        "parameters": shape.parameters,
        "embedding_parameters": shape.embedding_parameters,
        "non_embedding_parameters": shape.non_embedding_parameters,
        **(_of_file(file) if file else _of_folder(folder, dtype)),
        "kv_cache_bytes_per_token": shape.kv_cache_bytes(width),
        **({"state_bytes_per_sequence": state} if (state := shape.state_bytes(width)) else {}),
        "context": context,
        "flops_per_token": shape.flops_per_token(context),
    }


def show_inspection(name: str, place: Path, facts: dict[str, Any], as_json: bool, console: Console) -> None:
    """Print a model's figures.

    Args:
        name: What the user called it.
        place: Its folder or file.
        facts: The result of `inspection`.
        as_json: Print JSON instead of tables.
        console: Prints the tables.
    """
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    formats = facts.pop("formats", {})
    names = {key: key.replace("_", " ") for key in facts} | {"context": "context for FLOPs"}
    title = name if Path(name) == place else f"{name}: {place}"
    console.table(title, ["", ""], [[names[key], _fact(value)] for key, value in facts.items()])
    if formats:
        header = ["format", "tensors", "values", "bytes", "bits per weight"]
        console.table("Tensors by format", header, [[key, *map(_fact, row.values())] for key, row in formats.items()])


def suggest_families(name: str, folder: ModelFolder) -> None:
    """Name the families whose tables fit a model of a type that has none.

    Raises:
        ModelError: There are such families; the message says how to try one.
    """
    model_type = folder.config.get("model_type")
    known = not isinstance(model_type, str) or model_type in FAMILIES or adopted(model_type, FAMILIES) is not None
    if known or describe_unknown(folder.config) or not folder.has_weights:
        return
    found = [family.model_type for family in families_that_fit(folder)]
    if found:
        raise ModelError(
            f"{folder.path}: no axis table for model_type {model_type!r:.80}; the tables of {', '.join(found)} have "
            f"its weights' names and shapes. To check whether one of them cuts it exactly: "
            f"prunus inspect {name} --family NAME"
        )


def try_family(folder: ModelFolder, like: str, console: Console) -> None:
    """Check whether a model can be cut by a family's table, and use the table for its type from now on if so.

    Raises:
        RecipeError: There is no such family, or the model's type has one.
        ModelError: It cannot; see `check_likeness`.
    """
    from prunus.pipeline.likeness import check_likeness

    if like not in FAMILIES:
        raise RecipeError(f"--family: {like!r:.80} has no axis table{among(like, FAMILIES)}")
    model_type = str(folder.config.get("model_type"))
    if model_type in FAMILIES:
        raise RecipeError(f"--family: {model_type} has a table of its own ({FAMILIES[model_type].name}); leave it out")
    class_name, found = check_likeness(folder, FAMILIES[like], console)
    adopt(FAMILIES[like], model_type, class_name)
    console.table(
        f"Cuts of units that do nothing, by the table of {FAMILIES[like].name}",
        ["cut", "largest difference of logits, in standard deviations"],
        [[name, f"{difference:.2g}"] for name, difference in found.items()],
    )
    console.say(
        f"{model_type} is cut by this table from now on, on this machine; to forget that, remove {adopted_file()}"
    )


def _of_folder(folder: ModelFolder, dtype: str) -> dict[str, Any]:
    if folder.has_weights:
        return {"dtype": dtype, "weights": "headers checked", "bytes": folder.nbytes}
    size = folder.shape.parameters * ITEM_BYTES[dtype]
    return {"dtype": dtype, "weights": "not available; sizes follow from the config", "bytes": size}


def _of_file(file: GgufFile) -> dict[str, Any]:
    """Bytes of a GGUF file and of the tensors in it, in all and by format, the largest format first."""
    tensors, formats = list(file.tensors.values()), {}
    for kind in {tensor.type_name for tensor in tensors}:
        formats[kind] = _sums([tensor for tensor in tensors if tensor.type_name == kind])
    ordered = dict(sorted(formats.items(), key=lambda item: (-item[1]["bytes"], item[0])))
    return {
        "weights": "headers checked",
        "bytes": _sums(tensors)["bytes"],
        "file_bytes": sum(part.stat().st_size for part in file.files),
        "formats": {**ordered, "all": _sums(tensors)},
    }


def _sums(tensors: Sequence[GgufTensor]) -> dict[str, int | float]:
    values, size = sum(prod(tensor.shape) for tensor in tensors), sum(tensor.nbytes for tensor in tensors)
    bits = round(8 * size / values, 3) if values else 0.0
    return {"tensors": len(tensors), "values": values, "bytes": size, "bits_per_weight": bits}


def _fact(value: object) -> str:
    return f"{value:,}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)

"""The `extract` step: the text model inside a model of several parts, as a folder of its own, byte for byte."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from prunus.console import Console, human, human_bytes
from prunus.models.checkpoint import TensorInfo, TensorPlan, read_pieces, write_tensors
from prunus.models.families.nested import text_config
from prunus.models.folder import ModelFolder, copy_along, write_config
from prunus.models.foreign import check_plain
from prunus.models.inside import text_inside
from prunus.models.texts import read_optional_json
from prunus.runtime import Runtime
from prunus.steps.extract.config import ExtractConfig

_OF_PROCESSORS, _OF_TOKENIZERS = "chat_template.json", "chat_template.jinja"


@dataclass(frozen=True)
class Inputs:
    """The folder of the whole model."""

    whole: Path


def run(config: ExtractConfig, inputs: Inputs, out: Path, runtime: Runtime, console: Console) -> dict[str, float]:
    """Write the folder to `out`.

    Returns:
        Parameters and bytes of the text model, and `left_out_nbytes` of the other parts.

    Raises:
        ModelError: The text model is not known, or weights are missing, unknown or of another shape; raised before
            anything is written.
        ArtifactError: The disk is too full.
    """
    whole = ModelFolder(inputs.whole)
    if not config.weights and not whole.has_weights:  # a preview of a model on the hub
        check_plain(whole.config, str(inputs.whole))
        _write_texts(inputs.whole, out, text_config(inputs.whole, whole.config))
        return {}
    inside = text_inside(inputs.whole)
    shape = inside.shape
    _write_texts(inputs.whole, out, inside.config)
    if not config.weights:
        return {"parameters": shape.parameters}
    plans = [
        TensorPlan(name, info.dtype, info.shape, partial(read_pieces, info)) for name, info in inside.tensors.items()
    ]
    size = sum(plan.nbytes for plan in plans)
    with console.progress("extract", size, "bytes") as progress:
        write_tensors(out, plans, on_progress=progress.update)
    ModelFolder(out).check()
    left_out = sizes_of_parts(inside.others)
    others = ", ".join(f"{part} ({human_bytes(count)})" for part, count in left_out.items()) or "nothing"
    console.say(f"{shape.family.name}, {human(shape.parameters)} parameters: {human_bytes(size)}; left out: {others}")
    return {"parameters": shape.parameters, "nbytes": size, "left_out_nbytes": sum(left_out.values())}


def sizes_of_parts(tensors: list[TensorInfo]) -> dict[str, int]:
    """Bytes of each part of a model, by the first component of its name after `model.`."""
    sizes: dict[str, int] = {}
    for info in tensors:
        part = info.name.removeprefix("model.").partition(".")[0]
        sizes[part] = sizes.get(part, 0) + info.nbytes
    return sizes


def _write_texts(source: Path, out: Path, config: dict[str, Any]) -> None:
    """Write everything but the weights."""
    copy_along(source, out)
    _write_template(source, out)
    write_config(out, config)


def _write_template(source: Path, out: Path) -> None:
    """Write the chat template of the model's processor where tokenizers look for it, if the tokenizer has none."""
    (out / _OF_PROCESSORS).unlink(missing_ok=True)
    if (out / _OF_TOKENIZERS).is_file() or read_optional_json(out / "tokenizer_config.json").get("chat_template"):
        return
    template = read_optional_json(source / _OF_PROCESSORS).get("chat_template")
    if isinstance(template, str):
        (out / _OF_TOKENIZERS).write_text(template, encoding="utf-8")

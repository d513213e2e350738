"""The `insert` step: a student of a text model, put back into the model of several parts that it was taken from.

The other parts are copied byte for byte. If channels of the residual stream were cut or rotated, so is the output of
the projector, through which images enter that stream: W becomes Bᵀ W (see `Descent.basis`), as an embedding E becomes
E B.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from prunus.console import Console, human, human_bytes
from prunus.errors import ModelError
from prunus.models.checkpoint import TensorInfo, TensorPlan, read_bytes, read_pieces, write_tensors
from prunus.models.families.nested import outer_name, outer_of, with_text
from prunus.models.folder import ALONG, ModelFolder, copy_along, matching, write_config
from prunus.models.inside import Inside, text_inside
from prunus.models.values import from_float, to_float
from prunus.runtime import Runtime
from prunus.steps.insert.config import InsertConfig
from prunus.steps.insert.plan import Descent, check, descent

_OF_PROCESSORS = ("*processor_config.json", "chat_template.json")


@dataclass(frozen=True)
class Inputs:
    """The folders of the student, and of the whole model that its text model was taken from."""

    student: Path
    whole: Path


def run(config: InsertConfig, inputs: Inputs, out: Path, runtime: Runtime, console: Console) -> dict[str, float]:
    """Write the folder to `out`.

    Returns:
        Parameters of the text model; bytes of the folder's weights; `kept_nbytes`, those of the other parts that were
        copied unchanged; and `embedding_cosine`, see `check`.

    Raises:
        ModelError: The student cannot be put into the model; raised before anything is written. Or transformers finds
            weights missing, unknown or of another shape in the result.
        ArtifactError: The disk is too full.
    """
    inside, student = text_inside(inputs.whole), ModelFolder(inputs.student)
    student.check()
    found = descent(student, inside)
    cosine = check(student, inside, found)
    _write_texts(student, inside, found, out)
    outer, names = outer_of(inputs.whole, inside.whole.config), list(inside.whole.tensors)
    narrower = student.shape.hidden_size != inside.shape.hidden_size or not np.array_equal(
        found.basis, np.eye(len(found.basis))
    )
    basis = found.basis * student.shape.stream_factor(inside.shape)
    plans, kept = [], 0
    for info in inside.others:
        dim = outer.dimension(info.name) if narrower else None
        kept += info.nbytes if dim is None else 0
        plans.append(_copied(info.name, info) if dim is None else _cut(info, dim, basis))
    plans += [_copied(outer_name(name, names), info) for name, info in student.weights.items()]
    size = sum(plan.nbytes for plan in plans)
    with console.progress("insert", size, "bytes") as progress:
        write_tensors(out, plans, on_progress=progress.update)
    check_loads(inputs.whole, out)
    console.say(
        f"{student.family.name}, {human(student.shape.parameters)} parameters, in a model of {human_bytes(size)}; "
        f"{human_bytes(kept)} of other parts unchanged"
    )
    return {
        "parameters": student.shape.parameters,
        "nbytes": size,
        "kept_nbytes": kept,
        "embedding_cosine": cosine,
    }


def check_loads(before: Path, after: Path) -> None:
    """Compare a folder with what transformers' class has, on the meta device.

    Raises:
        ModelError: Weights are missing, unknown or of another shape, that were not so in the folder `before`.
    """
    from transformers import AutoModelForImageTextToText

    def faults(folder: Path) -> set[str]:
        try:
            _, info = AutoModelForImageTextToText.from_pretrained(
                folder, device_map="meta", output_loading_info=True, local_files_only=True
            )
        except (ValueError, RuntimeError, OSError) as error:
            return {str(error)}
        return {f"{kind}: {name}" for kind, names in info.items() for name in names}

    new = faults(after) - faults(before)
    if new:
        raise ModelError(f"{after}: transformers does not load it as what it was: {sorted(new)[0]}")


def _copied(name: str, info: TensorInfo) -> TensorPlan:
    return TensorPlan(name, info.dtype, info.shape, partial(read_pieces, info))


def _cut(info: TensorInfo, dim: int, basis: np.ndarray) -> TensorPlan:
    """A weight of the projector whose dimension `dim` is mapped from d to d' by the basis [d, d']."""
    shape = (*info.shape[:dim], basis.shape[1], *info.shape[dim + 1 :])

    def pieces() -> Iterator[bytes]:
        values = to_float(read_bytes(info), info.dtype).reshape(info.shape)
        yield from_float(np.moveaxis(np.moveaxis(values, dim, -1) @ basis, -1, dim), info.dtype)

    return TensorPlan(info.name, info.dtype, shape, pieces)


def _write_texts(student: ModelFolder, inside: Inside, found: Descent, out: Path) -> None:
    """Write everything but the weights: as it was, but for sizes, and for the tokenizer if its vocabulary was cut."""
    whole = inside.whole
    copy_along(whole.path, out)
    for file in matching(whole.path, _OF_PROCESSORS):
        shutil.copyfile(file, out / file.name)
    for file in matching(student.path, ALONG):
        if found.tokens is not None or not (out / file.name).exists():
            shutil.copyfile(file, out / file.name)
    new = {} if found.tokens is None else {old: new for new, old in enumerate(found.tokens)}
    widths = (inside.shape.hidden_size, student.shape.hidden_size)
    write_config(out, with_text(whole.path, whole.config, _changes(student, inside), widths, new))


def _changes(student: ModelFolder, inside: Inside) -> dict[str, Any]:
    """What differs in the student's config.json from that of the text model."""
    here, there = student.shape, inside.shape
    lists = [key for key in (*here.family.lists, "layer_types") if isinstance(student.config.get(key), list)]
    keys = [*here.config_values(inside.config), *lists]
    if here.head_dim != there.head_dim:
        keys += [key for key in student.config if key.startswith("rope_")]
    if here.vocab_size != there.vocab_size:
        keys += [key for key in student.config if key.endswith("token_id")]
    values = {**here.config_values(inside.config), **student.config}
    found = {key: values[key] for key in keys if key in values}
    return {**found, "tie_word_embeddings": here.flags["tie_word_embeddings"]}

"""The `prune` step: a student of the wanted shape, cut from the teacher's bytes, or drawn anew as a baseline."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prunus.console import Console
from prunus.errors import ArtifactError
from prunus.models.checkpoint import write_tensors
from prunus.models.draw import draw_model
from prunus.models.folder import ModelFolder, copy_along, write_config
from prunus.models.shape import Shape
from prunus.prune.choose import Keep, Scores, choose, random_scores
from prunus.prune.config import PruneConfig
from prunus.prune.cut import cut
from prunus.runtime import Runtime

SCORED = ("num_hidden_layers", "intermediate_size", "num_attention_heads", "hidden_size")


@dataclass(frozen=True)
class Inputs:
    """The teacher's folder, and its scores, which chance alone does without."""

    model: Path
    scores: Path | None = None


def run(config: PruneConfig, inputs: Inputs, out: Path, runtime: Runtime, console: Console) -> dict[str, float]:
    """Write the student to `out`, and beside it `kept.json`: what of the teacher it is made of.

    Returns:
        Its parameters, total and non-embedding.

    Raises:
        ShapeError: The shape cannot be cut from this teacher.
        ModelError: The teacher's folder is not what its config says.
        ArtifactError: There are no scores, or they are another model's.
    """
    teacher = ModelFolder(inputs.model)
    teacher.check()
    target = config.target(teacher.shape, "prune")
    if config.init == "random":
        draw_model(student_config(teacher.config, target, None), out, config.seed)
    else:
        keep = choose(_scores(inputs, config, teacher.shape), teacher.shape, target, config)
        plans = cut(teacher.tensors, teacher.shape, keep)
        with console.progress("prune", sum(plan.nbytes for plan in plans), "bytes") as progress:
            write_tensors(out, plans, on_progress=progress.update)
        write_config(out, student_config(teacher.config, target, keep.layers))
        _write_kept(keep, out)
    copy_along(inputs.model, out)
    student = ModelFolder(out)
    student.check()
    return {"parameters": student.shape.parameters, "non_embedding_parameters": student.shape.non_embedding_parameters}


def student_config(teacher: dict[str, Any], target: Shape, layers: list[int] | None) -> dict[str, Any]:
    """The student's config.json: the teacher's, with the dimensions written out and per-layer lists cut.

    Args:
        teacher: The teacher's config.json.
        target: The student's shape.
        layers: The layers that stay; None takes the first ones.
    """
    config = {**teacher, **target.dimensions()}
    kept = layers if layers is not None else list(range(target.num_hidden_layers))
    for key in target.family.lists:
        if isinstance(teacher.get(key), list):
            config[key] = [teacher[key][layer] for layer in kept]
    return config


def _scores(inputs: Inputs, config: PruneConfig, teacher: Shape) -> Scores:
    if config.importance == "random":
        return random_scores(teacher, config.seed)
    if inputs.scores is None or not (inputs.scores / "scores.safetensors").is_file():
        raise ArtifactError(
            f"prune: {inputs.scores or 'no folder'} holds no scores.safetensors; `prunus score` makes it"
        )
    from safetensors.numpy import load_file

    scores = load_file(inputs.scores / "scores.safetensors")
    found = (*scores["neurons"].shape, scores["heads"].shape[1], scores["channels"].shape[1])
    wanted = tuple(teacher.dimensions()[key] for key in SCORED)
    if found != wanted:
        raise ArtifactError(f"prune: {inputs.scores} scores another model: {SCORED} are {found} there, {wanted} here")
    return scores


def _write_kept(keep: Keep, out: Path) -> None:
    def plain(value: np.ndarray) -> list[int]:
        return [int(i) for i in value]

    kept = {
        "layers": keep.layers,
        "hidden": plain(keep.shared["hidden"]),
        "per_layer": [{axis: plain(rows[layer]) for axis, rows in keep.layered.items()} for layer in keep.layers],
    }
    (out / "kept.json").write_text(json.dumps(kept) + "\n")

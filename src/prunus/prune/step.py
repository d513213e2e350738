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
from prunus.prune.student import student_config
from prunus.prune.vocabulary import choose_tokens, named_ids, read_tokenizer, renumber, write_tokenizer
from prunus.runtime import Runtime

SCORED = ("num_hidden_layers", "intermediate_size", "num_attention_heads", "hidden_size")


@dataclass(frozen=True)
class Inputs:
    """What is cut, and by what.

    Attributes:
        model: The teacher's folder.
        scores: Its scores, which chance alone does without.
        tokens: The corpus, by which the vocabulary is cut.
    """

    model: Path
    scores: Path | None = None
    tokens: Path | None = None


def run(config: PruneConfig, inputs: Inputs, out: Path, runtime: Runtime, console: Console) -> dict[str, float]:
    """Write the student to `out`, and beside it `kept.json`: what of the teacher it is made of.

    Returns:
        Its parameters, total and non-embedding.

    Raises:
        ShapeError: The shape cannot be cut from this teacher.
        ModelError: The teacher's folder is not what its config says, or holds values that are not finite.
        ArtifactError: There are no scores, or they are another model's.
    """
    teacher = ModelFolder(inputs.model)
    teacher.check()
    target = config.target(teacher.shape, "prune")
    vocabulary = _vocabulary(teacher, target, inputs)
    scores = _scores(inputs, config, teacher.shape)
    keep = choose(scores, teacher.shape, target, config, vocabulary)
    settings = student_config(teacher.config, teacher.shape, target, keep.layers)
    if vocabulary is not None:
        settings = renumber(settings, {int(old): new for new, old in enumerate(vocabulary)})
    copy_along(inputs.model, out)
    if vocabulary is not None:
        write_tokenizer(inputs.model, out, vocabulary)
    if config.init == "random":
        draw_model(settings, out, config.seed)
    else:
        plans = cut(teacher.tensors, teacher.shape, target, keep, scores)
        with console.progress("prune", sum(plan.nbytes for plan in plans), "bytes") as progress:
            write_tensors(out, plans, on_progress=progress.update)
        write_config(out, settings)
        _write_kept(keep, out)
    student = ModelFolder(out)
    student.check()
    return {"parameters": student.shape.parameters, "non_embedding_parameters": student.shape.non_embedding_parameters}


def _vocabulary(teacher: ModelFolder, target: Shape, inputs: Inputs) -> np.ndarray | None:
    """The tokens that stay, or None where all do."""
    if target.vocab_size == teacher.shape.vocab_size:
        return None
    if inputs.tokens is None:
        raise ArtifactError("prune: vocab_size is cut by how often the corpus has each token; there is no corpus")
    from prunus.data.tokens import Tokens

    counts = np.bincount(Tokens.open(inputs.tokens).ids, minlength=teacher.shape.vocab_size)
    generation = teacher.path / "generation_config.json"
    always = named_ids(teacher.config) | (
        named_ids(json.loads(generation.read_text())) if generation.is_file() else set()
    )
    return choose_tokens(read_tokenizer(teacher.path), counts, always, target.vocab_size)


def _scores(inputs: Inputs, config: PruneConfig, teacher: Shape) -> Scores:
    if config.importance == "random" or config.init == "random":
        return random_scores(teacher, config.seed)
    if inputs.scores is None or not (inputs.scores / "scores.safetensors").is_file():
        raise ArtifactError(
            f"prune: {inputs.scores or 'no folder'} holds no scores.safetensors; `prunus score` makes it"
        )
    from safetensors.numpy import load_file

    scores = load_file(inputs.scores / "scores.safetensors")
    found = (len(scores["neurons"]), scores["neurons"].shape[-1], scores["heads"].shape[1], scores["channels"].shape[1])
    wanted = tuple(getattr(teacher, size) for size in SCORED)
    if found != wanted:
        raise ArtifactError(f"prune: {inputs.scores} scores another model: {SCORED} are {found} there, {wanted} here")
    return scores


def _write_kept(keep: Keep, out: Path) -> None:
    def plain(value: Any) -> list[Any]:
        return [plain(row) for row in value] if isinstance(value, list) else np.asarray(value).tolist()

    shared = {axis: plain(members) for axis, members in keep.shared.items() if axis != "positions"}
    per_layer = [{axis: plain(rows[layer]) for axis, rows in keep.layered.items()} for layer in keep.layers]
    (out / "kept.json").write_text(json.dumps({"layers": keep.layers, **shared, "per_layer": per_layer}) + "\n")

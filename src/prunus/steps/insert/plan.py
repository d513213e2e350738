"""What of a student cannot be put into a model of several parts; read from configs, headers and lineage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from prunus.errors import ModelError
from prunus.files import read_object
from prunus.models.checkpoint import TensorInfo, read_rows
from prunus.models.families.nested import EMBEDDING, image_tokens, inner_config, outer_of
from prunus.models.folder import ModelFolder
from prunus.models.inside import Inside
from prunus.models.lineage import KEPT, read_lineage
from prunus.models.values import to_float

LEAST_COSINE = 0.5
"""The least mean cosine between the student's embeddings and its teacher's. Training turns them by little; those of two
models that were trained apart have a cosine near 0, because the channels of one mean nothing to the other."""

_ROWS = 1024  # embeddings that are compared


@dataclass(frozen=True)
class Descent:
    """What a student has of the text model.

    Attributes:
        basis: B [d, d'], which maps the text model's residual stream to the student's.
        layers: The text model's layers that the student has, in order; None if that is not known.
        tokens: The ids of the text model's tokens that the student has, in its order; None if it has all.
    """

    basis: np.ndarray
    layers: list[int] | None
    tokens: list[int] | None


def descent(student: ModelFolder, inside: Inside) -> Descent:
    """Read what the student has of the text model.

    A student without lineage, such as a text model that was aligned but not pruned, has all channels as they were.

    Raises:
        ModelError: The lineage is missing and needed, damaged, or that of another teacher.
    """
    shape = inside.shape
    cut = student.shape.vocab_size != shape.vocab_size
    if not (student.path / KEPT).is_file():
        if cut or student.shape.hidden_size != shape.hidden_size:
            raise ModelError(
                f"{student.path}: there is no {KEPT}, which `prunus prune` writes, so it is not known which channels "
                "and tokens of the text model it has; expected a student made by Prunus"
            )
        return Descent(np.eye(shape.hidden_size, dtype=np.float32), None, None)
    lineage = read_lineage(student.path, shape.hidden_size, shape.num_hidden_layers)
    tokens = read_object(student.path / KEPT, ModelError).get("vocab") if cut else None
    if cut and not (isinstance(tokens, list) and len(tokens) == student.shape.vocab_size):
        raise ModelError(f"{student.path}: {KEPT} does not list its tokens, as after two cuts; its vocabulary was cut")
    return Descent(lineage.basis, lineage.layers, tokens)


def check(student: ModelFolder, inside: Inside, found: Descent) -> float:
    """Refuse a student that cannot be put into the model.

    Returns:
        The mean cosine between the student's embeddings and the text model's, in the student's channels.

    Raises:
        ModelError: All reasons in one message.
    """
    if student.family is not inside.shape.family:
        raise ModelError(f"{student.path}: a {student.family.name}; the text model is a {inside.shape.family.name}")
    cosine = embedding_cosine(student.weights[EMBEDDING], inside.tensors[EMBEDDING], found)
    reasons = list(_reasons(student, inside, found))
    if cosine < LEAST_COSINE:
        reasons.append(
            f"its embeddings have a mean cosine of {cosine:.2f} to those of the text model in {inside.whole.path}; "
            f"expected {LEAST_COSINE} or more: a student of another teacher, or trained from random weights"
        )
    if reasons:
        raise ModelError("\n".join(f"{student.path}: {reason}" for reason in reasons))
    return cosine


def embedding_cosine(student: TensorInfo, teacher: TensorInfo, found: Descent) -> float:
    """The mean cosine of rows of two embeddings, [v', d'] and [v, d], the second mapped to the student's stream."""
    rows = np.unique(np.linspace(0, student.shape[0] - 1, _ROWS).astype(np.int64))
    origins = rows if found.tokens is None else np.asarray(found.tokens)[rows]
    ours = _rows(student, rows)
    theirs = _rows(teacher, origins) @ found.basis
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    used = norms > 0  # rows of tokens that were never trained may be 0
    return float(np.mean(np.sum(ours * theirs, axis=1)[used] / norms[used])) if used.any() else 0.0


def _rows(info: TensorInfo, rows: np.ndarray) -> np.ndarray:
    return to_float(read_rows(info, rows.tolist()), info.dtype).reshape(len(rows), -1)


def _reasons(student: ModelFolder, inside: Inside, found: Descent) -> Iterator[str]:
    here, there = student.shape, inside.shape
    outer = outer_of(inside.whole.path, inside.whole.config)
    whole, _ = inner_config(inside.whole.path, inside.whole.config)
    if here.hidden_size != there.hidden_size and outer.projector is None:
        yield (
            f"hidden_size was cut from {there.hidden_size} to {here.hidden_size}; in a model of type "
            f"{whole.model_type} it is also a width inside the projector, whose neurons are not the text model's "
            "channels; cut other sizes"
        )
    if outer.square and here.hidden_size != here.num_attention_heads * here.head_dim:
        yield (
            f"hidden_size is {here.hidden_size}, and num_attention_heads x head_dim is {here.num_attention_heads} x "
            f"{here.head_dim}; a model of type {whole.model_type} requires that they are equal; cut both together"
        )
    if here.head_dim != there.head_dim and outer.sections:
        yield (
            f"head_dim was cut from {there.head_dim} to {here.head_dim}; rotary positions of images divide a head's "
            "pairs among time, height and width (mrope_section); cut other sizes"
        )
    early = list(range(len(getattr(whole.vision_config, outer.early)))) if outer.early else []
    if found.layers is not None and found.layers[: len(early)] != early:
        yield (
            f"its first layers are the text model's {found.layers[: len(early)]}; features of images are added after "
            f"layers {early}, which must stay; drop later ones"
        )
    kept = set(found.tokens or ())
    lost = [f"{key} {token}" for key, token in image_tokens(whole).items() if kept and token not in kept]
    if lost:
        yield f"its vocabulary lacks tokens of images: {', '.join(lost)}; keep them"

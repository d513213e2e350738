"""Lineage: which parts of its teacher a student has; written with its weights by pruning, read by distillation."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prunus.errors import ModelError
from prunus.files import read_object

KEPT, BASIS = "kept.json", "basis.safetensors"


@dataclass(frozen=True)
class Lineage:
    """A student's lineage.

    Attributes:
        layers: The teacher's layers that the student has, in order.
        basis: B [d, d'], which maps the teacher's residual stream to the student's: orthonormal columns; columns of the
            identity if channels were kept without rotation.
    """

    layers: list[int]
    basis: np.ndarray


def write_lineage(folder: Path, kept: dict[str, Any], basis: np.ndarray | None) -> None:
    """Write the indices of everything kept to `kept.json`, and the basis of a rotation to `basis.safetensors`."""
    (folder / KEPT).write_text(json.dumps(kept) + "\n", encoding="utf-8")
    if basis is not None:
        from safetensors.numpy import save_file

        save_file({"basis": np.ascontiguousarray(basis, dtype=np.float32)}, folder / BASIS)


def read_lineage(folder: Path, hidden_size: int, layers: int | None = None) -> Lineage:
    """Read a student's lineage.

    Args:
        folder: The student's folder.
        hidden_size: The teacher's, d.
        layers: The teacher's number of layers, for a check.

    Raises:
        ModelError: It is missing or damaged, or belongs to another teacher.
    """
    if not (folder / KEPT).is_file():
        raise ModelError(
            f"{folder}: there is no {KEPT}, which `prunus prune` writes, so hidden states cannot be compared; "
            "distill.states must be `none`"
        )
    kept = read_object(folder / KEPT, ModelError)
    for key in ("layers", "hidden"):
        numbers = kept.get(key)
        if not isinstance(numbers, list) or not numbers or not all(type(i) is int and i >= 0 for i in numbers):
            raise ModelError(f"{folder / KEPT}: {key} is {numbers!r:.80}; expected a list of whole numbers")
    if (folder / BASIS).is_file():
        basis = _read_basis(folder / BASIS)
    elif max(kept["hidden"]) < hidden_size:
        basis = np.eye(hidden_size, dtype=np.float32)[:, kept["hidden"]]
    else:
        raise ModelError(
            f"{folder}: it has channel {max(kept['hidden'])} of its teacher, but this teacher has {hidden_size}"
        )
    if len(basis) != hidden_size:
        raise ModelError(f"{folder}: it was pruned from {len(basis)} channels, but this teacher has {hidden_size}")
    if layers is not None and max(kept["layers"]) >= layers:
        raise ModelError(f"{folder}: it has layer {max(kept['layers'])} of its teacher, but this teacher has {layers}")
    return Lineage(kept["layers"], basis)


def _read_basis(file: Path) -> np.ndarray:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        basis = load_file(file).get("basis")
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file}: cannot be read: {error}") from None
    if basis is None or basis.ndim != 2 or not np.isfinite(basis).all():
        raise ModelError(f"{file}: expected a matrix `basis` of finite numbers")
    return basis


def composed(first: Lineage, kept: dict[str, Any], basis: np.ndarray | None) -> tuple[dict[str, Any], np.ndarray]:
    """The lineage of a student pruned from a student, relative to the first teacher.

    Args:
        first: The lineage of the model that was pruned the second time.
        kept: The indices kept in the second pruning, `layers` and `hidden`, relative to that model.
        basis: The basis of the second pruning; None without rotation.

    Returns:
        `kept` with the first teacher's layers, and without other axes, whose indices would not be the first teacher's;
        and the basis B [d, d''] of both prunings.
    """
    second = np.eye(first.basis.shape[1], dtype=np.float32)[:, kept["hidden"]] if basis is None else basis
    layers = [first.layers[layer] for layer in kept["layers"]]
    return {"layers": layers, "hidden": kept["hidden"]}, np.asarray(first.basis @ second, dtype=np.float32)


def copy_lineage(source: Path, target: Path) -> None:
    """Copy a student's lineage to a model trained from it."""
    for name in (KEPT, BASIS):
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def narrow_lineage(source: Path, target: Path, layers: Sequence[int], channels: int) -> None:
    """Write the lineage of a size of a nest: some of the layers, and the first `channels` channels.

    Args:
        source: The folder of the nest; one without a lineage gives none.
        target: The folder of the size.
        layers: The nest's layers that the size has.
        channels: The size's channels.
    """
    if not (source / KEPT).is_file():
        return
    kept = read_object(source / KEPT, ModelError)
    basis = _read_basis(source / BASIS)[:, :channels] if (source / BASIS).is_file() else None
    hidden = kept["hidden"] if basis is not None else kept["hidden"][:channels]
    write_lineage(target, {"layers": [kept["layers"][layer] for layer in layers], "hidden": hidden}, basis)

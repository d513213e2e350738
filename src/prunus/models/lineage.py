"""What of its teacher a student is made of: written beside its weights by the cut, read by who trains it."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prunus.errors import ModelError
from prunus.files import read_object

KEPT, BASIS = "kept.json", "basis.safetensors"


@dataclass(frozen=True)
class Lineage:
    """A student's descent.

    Attributes:
        layers: The teacher's layers that the student has, in order.
        basis: B [d, d'], which takes the teacher's residual stream to the student's: orthonormal columns, those of the
            identity where channels were kept as they were.
    """

    layers: list[int]
    basis: np.ndarray


def write_lineage(folder: Path, kept: dict[str, Any], basis: np.ndarray | None) -> None:
    """Write `kept.json`, the numbers of all that stayed, and the basis of a rotated cut as `basis.safetensors`."""
    (folder / KEPT).write_text(json.dumps(kept) + "\n", encoding="utf-8")
    if basis is not None:
        from safetensors.numpy import save_file

        save_file({"basis": np.ascontiguousarray(basis, dtype=np.float32)}, folder / BASIS)


def read_lineage(folder: Path, hidden_size: int, layers: int | None = None) -> Lineage:
    """Read what `write_lineage` wrote.

    Args:
        folder: The student's.
        hidden_size: d, the teacher's.
        layers: How many the teacher has, to be checked.

    Raises:
        ModelError: There is nothing, it is damaged, or it is of another teacher.
    """
    if not (folder / KEPT).is_file():
        raise ModelError(
            f"{folder}: there is no {KEPT}, as `prunus prune` writes it, so states cannot be compared: "
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
            f"{folder}: it has channel {max(kept['hidden'])} of its teacher, and this one has {hidden_size}"
        )
    if len(basis) != hidden_size:
        raise ModelError(f"{folder}: it was cut from {len(basis)} channels, and this teacher has {hidden_size}")
    if layers is not None and max(kept["layers"]) >= layers:
        raise ModelError(f"{folder}: it has layer {max(kept['layers'])} of its teacher, and this one has {layers}")
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
    """What a student of a student is made of, told of the first teacher: its layers there, and the basis of both cuts.

    Args:
        first: The descent of what was cut the second time.
        kept: What stayed of that: `layers` and `hidden` by its numbers.
        basis: Of the second cut, or None where its channels were kept as they were.

    Returns:
        `kept` with the first teacher's layers and without the members of other axes, whose numbers are not its, and
        the basis B [d, d''].
    """
    second = np.eye(first.basis.shape[1], dtype=np.float32)[:, kept["hidden"]] if basis is None else basis
    layers = [first.layers[layer] for layer in kept["layers"]]
    return {"layers": layers, "hidden": kept["hidden"]}, np.asarray(first.basis @ second, dtype=np.float32)


def copy_lineage(source: Path, target: Path) -> None:
    """Hand a student's descent on to what is trained from it."""
    for name in (KEPT, BASIS):
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)

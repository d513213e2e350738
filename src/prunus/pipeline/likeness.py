"""Whether models of a type without a family can be cut by another family's table: tried on a checkpoint.

A table is right if a cut of units that do nothing changes no logits. So units of each axis are set to zero, in the
checkpoint's own first layers, and cut; transformers' class of the checkpoint's own type computes both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from prunus.console import Console
from prunus.errors import ModelError
from prunus.models.alike import FolderAs
from prunus.models.axes import TIED, Weight, parse_weight, positions
from prunus.models.checkpoint import TensorInfo, TensorPlan, read_bytes, write_tensors
from prunus.models.families.adopted import renamed
from prunus.models.families.family import Family, Place
from prunus.models.folder import ModelFolder, write_config
from prunus.models.positions import SCALABLE_ROPES
from prunus.models.prefix import rotary_pairs
from prunus.models.shape import Shape
from prunus.models.student import student_config
from prunus.models.values import from_float, to_float
from prunus.steps.prune.choose import Keep
from prunus.steps.prune.cut import cut, indices
from prunus.steps.prune.rotate import Rotation, make_rotation, stored_vectors

LAYERS = 3
"""The first layers of the checkpoint are tried, so that large models fit in memory."""

LARGEST = 1e-2
"""The largest difference of logits, in their standard deviations, that counts as none: norms add a small constant to a
mean square that changes with the width. A table that is not the model's own gives differences near 1."""

_TOKENS = (2, 24)


@dataclass(frozen=True)
class Trial:
    """A cut of units that do nothing.

    Attributes:
        name: The size in config.json that is cut, or `nothing`.
        sizes: The student's sizes.
        dead: The units that do nothing and are cut, by axis; in every layer the same.
        layer: The layer that does nothing and is cut.
        rotated: Whether the residual stream is expressed in another basis.
    """

    name: str
    sizes: Mapping[str, int] = field(default_factory=dict)
    dead: Mapping[str, np.ndarray] = field(default_factory=dict)
    layer: int | None = None
    rotated: bool = False


def check_likeness(folder: ModelFolder, family: Family, console: Console) -> tuple[str, dict[str, float]]:
    """Try a family's table on a checkpoint of another type.

    Args:
        folder: The checkpoint.
        family: The family.
        console: Shows progress.

    Returns:
        The class of its type in transformers; and for each trial the largest difference of logits between the model
        before and after the cut, in standard deviations of the logits.

    Raises:
        ModelError: Its weights do not fit the table; transformers does not have its type; it has experts or layers of
            several kinds; or a cut of units that do nothing changes its logits, with the sizes that do.
    """
    model_type = str(folder.config.get("model_type"))
    class_name = _class_of(model_type, folder.path)
    tried = FolderAs(folder.path, renamed(family, model_type, class_name))
    if family.experts is not None or family.kinds:
        raise ModelError(
            f"{folder.path}: {family.name} has {'experts' if family.experts else 'layers of several kinds'}; "
            "tables of such families cannot be tried"
        )
    tried.check()
    found = {}
    with TemporaryDirectory() as scratch:
        first = _first_layers(tried, Path(scratch) / "first")
        trials = list(trials_of(first.shape))
        with console.progress("check", len(trials), "cuts") as progress:
            for number, trial in enumerate(trials):
                found[trial.name] = _difference(first, trial, Path(scratch) / trial.name)
                progress.update(number + 1)
    wrong = [name for name, difference in found.items() if not difference <= LARGEST]
    if wrong:
        raise ModelError(
            f"{folder.path}: a {model_type} cannot be cut by the table of {family.name}, though its weights fit: a cut "
            "of units that do nothing changes its logits by "
            + ", ".join(f"{found[name]:.2g} standard deviations ({name})" for name in wrong)
        )
    return class_name, found


def trials_of(shape: Shape) -> Iterator[Trial]:
    """A cut of nothing, and one along each axis that the shape allows to cut: a quarter of the units, or one."""
    family = shape.family
    heads, groups, hidden = shape.num_attention_heads, shape.num_key_value_heads, shape.hidden_size
    group = heads // groups
    yield Trial("nothing")
    if family.rotation == "always" or (family.rotation == "untied" and not shape.flags[TIED]):
        yield Trial("rotation", rotated=True)
    if shape.num_hidden_layers > 1:
        yield Trial("num_hidden_layers", {"num_hidden_layers": shape.num_hidden_layers - 1}, layer=1)
    fewer = shape.intermediate_size - max(1, shape.intermediate_size // 4)
    yield Trial("intermediate_size", {"intermediate_size": fewer}, {"mlp": np.arange(fewer, shape.intermediate_size)})
    one_group = {"heads": np.arange(heads - group, heads), "kv_heads": np.array([groups - 1])}
    without_group = {"num_attention_heads": heads - group}
    if "num_key_value_heads" not in family.absent or groups == heads:
        without_group["num_key_value_heads"] = groups - 1
    if family.square:
        dead = one_group if groups > 1 else {"heads": np.array([heads - 1])}
        sizes = without_group if groups > 1 else {"num_attention_heads": heads - 1}
        width = sizes["num_attention_heads"] * shape.head_dim
        if width:
            yield Trial("hidden_size", {**sizes, "hidden_size": width}, {**dead, "hidden": np.arange(width, hidden)})
        return
    width = heads * max(1, 3 * hidden // (4 * heads))
    if width < hidden:
        yield Trial("hidden_size", {"hidden_size": width}, {"hidden": np.arange(width, hidden)})
    if group > 1:
        last = np.arange(group - 1, heads, group)
        yield Trial("num_attention_heads", {"num_attention_heads": heads - groups}, {"heads": last})
    if groups > 1:
        yield Trial("num_key_value_heads", without_group, one_group)
    kept = shape.head_dim // 4 * 2
    if "head_dim" not in family.absent and kept >= (shape.least_head_dim or 2) and shape.rope_types <= SCALABLE_ROPES:
        dims = np.setdiff1d(np.arange(shape.head_dim), rotary_pairs(shape, kept))
        yield Trial("head_dim", {"head_dim": kept}, {"head_dim": dims})


def _class_of(model_type: str, where: Path) -> str:
    """Transformers' class for a type.

    Raises:
        ModelError: It has none.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(model_type)
    if not isinstance(name, str):
        raise ModelError(
            f"{where}: transformers has no causal LM of type {model_type!r:.80}, so no table can be tried; code in a "
            "folder never runs"
        )
    return name


def _first_layers(tried: FolderAs, out: Path) -> FolderAs:
    """The checkpoint with its first layers alone."""
    shape = tried.shape
    target = shape.with_dimensions({"num_hidden_layers": min(LAYERS, shape.num_hidden_layers)})
    keep = _keep(shape, Trial("", layer=None), list(range(target.num_hidden_layers)))
    return _cut(tried, shape, target, keep, out)


def _difference(first: FolderAs, trial: Trial, scratch: Path) -> float:
    """The largest difference of logits that a trial's cut makes, in standard deviations of the logits."""
    shape = first.shape
    target = shape.with_dimensions(trial.sizes)
    target.check_loadable(trial.name)
    layers = [layer for layer in range(shape.num_hidden_layers) if layer != trial.layer]
    keep = _keep(shape, trial, layers)
    dead = scratch / "dead"
    dead.mkdir(parents=True)
    write_tensors(dead, [_killed(info, shape, keep, trial) for info in first.weights.values()])
    write_config(dead, first.config)
    whole = FolderAs(dead, first.table)
    rotation = _any_basis(whole) if trial.rotated else None
    small = _cut(whole, shape, target, keep, scratch / "cut", rotation)
    before, after = _logits(dead, shape.vocab_size), _logits(small.path, shape.vocab_size)
    return float(np.abs(after - before).max() / before.std())


def _cut(
    source: FolderAs, shape: Shape, target: Shape, keep: Keep, out: Path, rotation: Rotation | None = None
) -> FolderAs:
    out.mkdir(parents=True)
    write_tensors(out, cut(source.weights, shape, target, keep, _energies(shape, keep), rotation))
    write_config(out, student_config(source.config, shape, target, keep.layers))
    return FolderAs(out, source.table)


def _any_basis(folder: FolderAs) -> Rotation:
    """A random basis of the whole residual stream."""
    shape, weights = folder.shape, folder.weights
    draw = np.random.default_rng(0).normal(size=(shape.hidden_size, shape.hidden_size))
    if shape.family.layer_norm:
        draw -= draw.mean(axis=0)
    vector = stored_vectors(lambda name: to_float(read_bytes(weights[name]), weights[name].dtype), shape.family)
    return make_rotation(draw @ draw.T, draw @ draw.T, shape, shape.hidden_size, vector)


def _keep(shape: Shape, trial: Trial, layers: list[int]) -> Keep:
    def living(axis: str, size: int) -> np.ndarray:
        return np.setdiff1d(np.arange(size), trial.dead.get(axis, []))

    sizes = shape.sizes()
    shared = {axis: living(axis, sizes[axis]) for axis in ("vocab", "positions", "head_dim", "hidden")}
    rows = {axis: living(axis, sizes[axis]) for axis in ("mlp", "heads", "kv_heads")}
    return Keep(layers, shared, {axis: [row] * shape.num_hidden_layers for axis, row in rows.items()})


def _energies(shape: Shape, keep: Keep) -> dict[str, np.ndarray]:
    """Energies of the inputs of norms, as scoring finds them: 0 where units are dead, so that gains are scaled."""
    layered, shared = shape.family.norms
    sizes = shape.sizes()

    def energy(weight: Weight, layer: int | None) -> np.ndarray:
        (size,) = weight.shape(sizes)
        living = positions(weight, sizes, lambda axis: keep.members(axis, layer))[0]
        return np.isin(np.arange(size), living).astype(np.float64)

    found = {}
    for norm in shared:
        found[f"energy.{norm}"] = energy(parse_weight(shape.family.shared[f"{norm}.weight"]), None)
    for norm in layered:
        weight = parse_weight(shape.family.layered[f"{norm}.weight"])
        found[f"energy.{norm}"] = np.stack([energy(weight, layer) for layer in range(shape.num_hidden_layers)])
    return found


def _killed(info: TensorInfo, shape: Shape, keep: Keep, trial: Trial) -> TensorPlan:
    """A tensor in which the units that are not kept are 0."""
    place = shape.family.place(info.name)
    assert place is not None  # the names were compared with the table

    def pieces() -> Iterator[bytes]:
        values = to_float(read_bytes(info), info.dtype).reshape(info.shape)
        zero = -shape.family.offset_of(place)
        if "hidden" in trial.dead and shape.family.layer_norm:
            _centre(values, place, shape.family, keep.shared["hidden"])
        for dim, living in enumerate(indices(place, shape.sizes(), keep)):
            gone = np.setdiff1d(np.arange(info.shape[dim]), living)
            np.moveaxis(values, dim, 0)[gone] = zero
        if place.layer is not None and place.layer == trial.layer and shape.family.writes(place):
            values[:] = zero
        yield from_float(values, info.dtype)

    return TensorPlan(info.name, info.dtype, info.shape, pieces)


def _centre(values: np.ndarray, place: Place, family: Family, living: np.ndarray) -> None:
    """Take the living channels' mean out of what is written to the stream, so that LayerNorm finds none to take."""
    of_rows = place.weight.has("vocab") or place.weight.has("positions")
    dim = len(place.weight.dims) - 1 if of_rows else family.outputs(place.weight)
    if place.weight.dims[dim] == (("hidden",),):
        moved = np.moveaxis(values, dim, 0)
        moved[living] -= moved[living].mean(axis=0)


def _logits(folder: Path, vocab_size: int) -> np.ndarray:
    """The logits about random tokens, by transformers, in float32.

    Raises:
        ModelError: Transformers finds weights missing, unknown or of another shape.
    """
    import torch
    from transformers import AutoModelForCausalLM

    ids = np.random.default_rng(0).integers(0, vocab_size, _TOKENS)
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, local_files_only=True
        )
    except (ValueError, RuntimeError, OSError) as error:
        raise ModelError(f"transformers does not load the checkpoint after a cut by this table: {error}") from None
    faults: dict[str, Any] = {kind: sorted(map(str, names))[:2] for kind, names in info.items() if names}
    if faults:
        raise ModelError(f"transformers does not load the checkpoint after a cut by this table: {faults}")
    with torch.no_grad():
        logits: np.ndarray = model.eval()(torch.from_numpy(ids), use_cache=False).logits.double().numpy()
    return logits

"""Heals a student on disk; with `refit: auto`, keeps the result only if it is closer to the teacher."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from prunus.console import Console
from prunus.models.folder import ModelFolder
from prunus.models.load import device_of, save_model, saved_dtype
from prunus.models.prefix import Part
from prunus.runtime import Runtime
from prunus.steps.prune.activations import load_runners
from prunus.steps.prune.bridge import make_bridge
from prunus.steps.prune.calibration import calibration_and_validation
from prunus.steps.prune.choose import Keep
from prunus.steps.prune.config import PruneConfig
from prunus.steps.prune.damage import divergence, fit_in_memory
from prunus.steps.prune.heal import heal
from prunus.steps.prune.heal_config import HealConfig
from prunus.steps.prune.pair import is_linear
from prunus.steps.prune.rank import Scores
from prunus.steps.prune.refit import Inner
from prunus.steps.prune.rotate import Rotation


@dataclass(frozen=True)
class CutInfo:
    """How a student was cut.

    Attributes:
        keep: What the cut kept.
        rotation: The change of basis, if the cut rotated.
        scores: The teacher's scores.
        inner: What the next smaller size of a nest has of the student's weights.
    """

    keep: Keep
    rotation: Rotation | None
    scores: Scores
    inner: tuple[Part, ...] = ()


def heal_checkpoint(
    config: PruneConfig, teacher: Path, out: Path, tokens: Path, cut: CutInfo, runtime: Runtime, console: Console,
    tried: HealConfig | None = None,
) -> dict[str, float]:  # fmt: skip
    """Heal the student in `out`, with both models in memory; with `auto`, only if that brings it closer to the teacher.

    Args:
        config: The options of the cut.
        teacher: The teacher's folder.
        out: The student's folder.
        tokens: The corpus.
        cut: How the student was cut.
        runtime: Device, precision and batch size.
        console: Shows progress, and the comparison that `auto` makes.
        tried: What `auto` tries; by default norms and all linear layers.

    Returns:
        With `auto`, `refitted`: 1 if the refit was kept, otherwise 0.
    """
    auto = config.heal.refit == "auto"
    if auto and not fit_in_memory((teacher, out), runtime):
        console.warn("not refitted: there is too little free memory for both models")
        return {"refitted": 0}
    ids, validation = (torch.from_numpy(part) for part in calibration_and_validation(config, tokens))
    if auto and not len(validation):
        console.say(f"not refitted: the corpus has fewer than 4 sequences of {config.heal.sequence_length} tokens")
        return {"refitted": 0}
    folders = (ModelFolder(teacher), ModelFolder(out))
    runner_t, runner_s = load_runners(folders, len(ids), runtime)
    before = divergence(runner_t.model, runner_s.model, validation) if auto else 0.0
    shape_t, shape_s = (folder.shape for folder in folders)
    bridge = make_bridge(shape_t, shape_s, cut.keep, cut.rotation, cut.scores, device_of(runtime))
    if cut.inner:
        bridge = replace(bridge, inner=_inner(runner_s.model, cut.inner, config.heal.inner_weight))
    with console.progress("heal", len(cut.keep.layers), "layers") as progress:
        heal(runner_t, runner_s, bridge, ids, tried or config.heal.effective, progress.update)
    if auto:
        after = divergence(runner_t.model, runner_s.model, validation)
        closer = after < before
        outcome = "" if closer else "; the refit is discarded"
        console.say(f"refit: KL to the teacher {before:.4g} before, {after:.4g} after{outcome}")
        if not closer:
            return {"refitted": 0}
    save_model(runner_s.model, out, saved_dtype(folders[1]))
    return {"refitted": 1} if auto else {}


def _inner(model: PreTrainedModel, parts: tuple[Part, ...], weight: float) -> dict[nn.Module, Inner]:
    """What a smaller size has of a model's linear layers."""
    found = {}
    for part in parts:
        name = part.source.removesuffix(".weight")
        if name != part.source and is_linear(model, name):
            module = model.get_submodule(name)
            indices = [torch.from_numpy(axis).to(model.device) for axis in part.indices]
            rows, columns = indices if isinstance(module, nn.Linear) else reversed(indices)
            found[module] = Inner(rows, columns, weight)
    return found

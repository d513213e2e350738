"""Healing a student's folder, and whether what a refit did is kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from prunus.console import Console
from prunus.models.folder import ModelFolder
from prunus.models.load import device_of, save_model, saved_dtype
from prunus.runtime import Runtime
from prunus.steps.prune.activations import sides
from prunus.steps.prune.bridge import make_bridge
from prunus.steps.prune.calibration import fitted_and_judged
from prunus.steps.prune.choose import Keep
from prunus.steps.prune.config import PruneConfig
from prunus.steps.prune.damage import divergence, has_room
from prunus.steps.prune.heal import heal
from prunus.steps.prune.rank import Scores
from prunus.steps.prune.rotate import Rotation


@dataclass(frozen=True)
class Made:
    """How a student was made.

    Attributes:
        keep: What stayed of the teacher.
        rotation: The change of basis, if there was one.
        scores: The teacher's.
    """

    keep: Keep
    rotation: Rotation | None
    scores: Scores


def heal_student(
    config: PruneConfig, teacher: Path, out: Path, tokens: Path, made: Made, runtime: Runtime, console: Console
) -> dict[str, float]:
    """Heal the student in `out`, with both models in memory; of `auto`, where that brings it nearer its teacher.

    Args:
        config: The options of the cut.
        teacher: The teacher's folder.
        out: The student's folder.
        tokens: The corpus.
        made: How the student was made.
        runtime: Where.
        console: Shows how far it is, and what `auto` found.

    Returns:
        Of `auto`, whether the student was refitted.
    """
    auto = config.heal.refit == "auto"
    if auto and not has_room((teacher, out), runtime):
        console.warn("not refitted: there is too little free memory for both models")
        return {"refitted": 0}
    ids, judged = (torch.from_numpy(part) for part in fitted_and_judged(config, tokens))
    if auto and not len(judged):
        console.say(f"not refitted: the corpus has fewer than 4 sequences of {config.heal.sequence_length} tokens")
        return {"refitted": 0}
    folders = (ModelFolder(teacher), ModelFolder(out))
    whole, student = sides(folders, len(ids), runtime)
    before = divergence(whole.model, student.model, judged) if auto else 0.0
    first, second = (folder.shape for folder in folders)
    bridge = make_bridge(first, second, made.keep, made.rotation, made.scores, device_of(runtime))
    with console.progress("heal", len(made.keep.layers), "layers") as progress:
        heal(whole, student, bridge, ids, config.heal.decided, progress.update)
    if auto:
        after = divergence(whole.model, student.model, judged)
        nearer = after < before
        console.say(f"refit: KL {before:.4g} as cut, {after:.4g} refitted{'' if nearer else ': it stays as cut'}")
        if not nearer:
            return {"refitted": 0}
    save_model(student.model, out, saved_dtype(folders[1]))
    return {"refitted": 1} if auto else {}

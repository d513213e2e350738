"""What a block of layers is worth once everything that stays has been fitted to make up for it.

A block may turn the residual stream little and yet be hard to do without, or the other way round: training moves what
stays, and scores of the model as it is know nothing of that. A refit in closed form is the nearest to it that costs no
training (docs/decisions/0002 has both rankings).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from prunus.models.checkpoint import write_tensors
from prunus.models.folder import ModelFolder, copy_along, write_config
from prunus.models.student import student_config
from prunus.runtime import Runtime
from prunus.steps.prune.activations import sides
from prunus.steps.prune.bridge import make_bridge
from prunus.steps.prune.choose import choose
from prunus.steps.prune.config import PruneConfig
from prunus.steps.prune.cut import cut
from prunus.steps.prune.damage import divergence
from prunus.steps.prune.heal import heal
from prunus.steps.prune.heal_config import HealConfig


def refit_losses(
    teacher: ModelFolder,
    blocks: Sequence[tuple[int, ...]],
    ids: np.ndarray,
    config: HealConfig,
    runtime: Runtime,
    scratch: Path,
    update: Callable[[int], None],
) -> dict[tuple[int, ...], float]:
    """KL(teacher ‖ student) in nats per token for the student without each of the blocks, all its linears refitted.

    Args:
        teacher: What is cut.
        blocks: The layers that go, each time.
        ids: The calibration set, [N, S]: fitted and measured on.
        config: How strongly weights are held to what they were.
        runtime: Where.
        scratch: An empty folder, for one student at a time.
        update: Is told how many blocks are done.
    """
    losses = {}
    for number, block in enumerate(blocks, start=1):
        options = PruneConfig(drop_layers=block)
        target = options.target(teacher.shape, "prune")
        keep = choose({}, teacher.shape, target, options, None)
        folder = scratch / str(number)
        folder.mkdir()
        copy_along(teacher.path, folder)
        write_tensors(folder, cut(teacher.tensors, teacher.shape, target, keep, {}))
        write_config(folder, student_config(teacher.config, teacher.shape, target, keep.layers))
        whole, student = sides((teacher, ModelFolder(folder)), len(ids), runtime)
        bridge = make_bridge(teacher.shape, target, keep, None, {}, whole.model.device)
        tokens = torch.from_numpy(ids)
        heal(whole, student, bridge, tokens, config.model_copy(update={"refit": "all"}), lambda _: None)
        losses[block] = divergence(whole.model, student.model, tokens)
        update(number)
    return losses

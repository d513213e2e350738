"""Importance of blocks of layers: the loss without each block after the remaining weights have been refitted.

A block may change the residual stream little and still be hard to replace, or the other way round: training adapts the
remaining weights, and scores of the unchanged model do not account for that. A refit in closed form is the closest
estimate without training (docs/decisions/0002 has both rankings).
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
from prunus.steps.prune.activations import load_runners
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
    """KL(teacher ‖ student) in nats per token for the student without each block, with all linear layers refitted.

    Args:
        teacher: The teacher.
        blocks: The blocks to drop, one at a time, as layer indices.
        ids: The calibration set, [N, S]; used for both the fit and the KL.
        config: The options of healing; `refit` is `all`.
        runtime: Device, precision and batch size.
        scratch: An empty folder for the students.
        update: Called with the number of blocks done.
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
        runner_t, runner_s = load_runners((teacher, ModelFolder(folder)), len(ids), runtime)
        bridge = make_bridge(teacher.shape, target, keep, None, {}, runner_t.model.device)
        tokens = torch.from_numpy(ids)
        heal(runner_t, runner_s, bridge, tokens, config.model_copy(update={"refit": "all"}), lambda _: None)
        losses[block] = divergence(runner_t.model, runner_s.model, tokens)
        update(number)
    return losses

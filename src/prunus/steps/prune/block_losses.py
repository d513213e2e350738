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
from prunus.models.shape import Shape
from prunus.models.student import student_config
from prunus.runtime import Runtime
from prunus.steps.prune.activations import load_runner
from prunus.steps.prune.bridge import make_bridge
from prunus.steps.prune.choose import Keep, choose
from prunus.steps.prune.config import PruneConfig
from prunus.steps.prune.cut import cut
from prunus.steps.prune.damage import stream_divergence
from prunus.steps.prune.heal import heal_from
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
    runner_t = load_runner(teacher, None, len(ids), runtime)
    tokens, losses = torch.from_numpy(ids), {}
    runner_t.start(tokens)
    unchanged = 0  # layers before the one that is fitted to end at the block: the student's are the teacher's
    for number, block in enumerate(sorted(blocks), start=1):
        student, target, keep = _without(teacher, block, scratch / str(number))
        runner_s = load_runner(student, torch.float32, len(ids), runtime)
        bridge = make_bridge(teacher.shape, target, keep, None, {}, runner_t.model.device)
        for i in range(unchanged, block[0] - 1):
            runner_t.advance(i)
        unchanged = max(block[0] - 1, 0)
        stream = runner_t.stream
        runner_s.start(tokens)
        if runner_s.model.dtype == runner_t.model.dtype:
            runner_s.stream = stream
        else:
            for j in range(unchanged):
                runner_s.advance(j)
        heal_from(unchanged, runner_t, runner_s, bridge, config.model_copy(update={"refit": "all"}), lambda _: None)
        losses[block] = stream_divergence(runner_t, runner_s)
        runner_t.stream = stream
        update(number)
    return losses


def _without(teacher: ModelFolder, block: tuple[int, ...], folder: Path) -> tuple[ModelFolder, Shape, Keep]:
    """Write the teacher without a block of layers to a new folder; with its shape, and what it keeps."""
    options = PruneConfig(drop_layers=block)
    target = options.target(teacher.shape, "prune")
    keep = choose({}, teacher.shape, target, options, None)
    folder.mkdir()
    copy_along(teacher.path, folder)
    write_tensors(folder, cut(teacher.tensors, teacher.shape, target, keep, {}))
    write_config(folder, student_config(teacher.config, teacher.shape, target, keep.layers))
    return ModelFolder(folder), target, keep

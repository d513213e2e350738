"""Fits the scale of every norm of each size of a nest, so that its output is as large as the teacher's.

A refit of linear layers fits one size, and the sizes of a nest share theirs; so norms are all that is fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from prunus.console import Console
from prunus.models.folder import ModelFolder
from prunus.models.nest import norms_in, own_norms, read_nest, write_nest, write_size
from prunus.runtime import Runtime
from prunus.steps.prune.config import PruneConfig
from prunus.steps.prune.heal_checkpoint import CutInfo, heal_checkpoint
from prunus.steps.prune.heal_config import HealConfig
from prunus.steps.prune.nest_cut import SizeCut
from prunus.steps.prune.nest_order import in_order
from prunus.steps.prune.rank import Scores


def fit_norms(
    config: PruneConfig, teacher: Path, out: Path, tokens: Path, cuts: Sequence[SizeCut], scores: Scores,
    runtime: Runtime, console: Console,
) -> None:  # fmt: skip
    """Fit the norms of every size of the nest in `out`; with `heal: auto`, where that brings the size closer.

    Args:
        config: The options of the cut.
        teacher: The teacher's folder.
        out: The folder of the nest.
        tokens: The corpus.
        cuts: How each size was cut, the largest first.
        scores: The teacher's scores.
        runtime: Device, precision and batch size.
        console: Shows progress.
    """
    nest = read_nest(out)
    norms: dict[str, np.ndarray] = {}
    for size, how in zip(nest.smaller, cuts[1:], strict=True):
        with TemporaryDirectory(dir=out) as scratch:
            folder = Path(scratch)
            write_size(nest, size, own_norms(nest, size), folder)
            _fit(config, teacher, folder, tokens, how, scores, runtime, console)
            norms |= {f"{size.name}/{name}": values for name, values in norms_in(ModelFolder(folder)).items()}
    _fit(config, teacher, out, tokens, cuts[0], scores, runtime, console)
    write_nest(out, nest.sizes, norms)


def _fit(
    config: PruneConfig, teacher: Path, folder: Path, tokens: Path, cut: SizeCut, scores: Scores, runtime: Runtime,
    console: Console,
) -> None:  # fmt: skip
    """Fit the norms of the size in `folder`."""
    console.say(f"norms of {cut.name}:")
    info = CutInfo(in_order(cut.keep, cut.order), cut.rotation, scores)
    heal_checkpoint(config, teacher, folder, tokens, info, runtime, console, HealConfig(norms=True))

"""Fits the sizes of a nest to their teacher: the linear layers that they share, and the norms of each.

The sizes are refitted one after the other, the smallest first: it is fitted as a student of its own is. A larger one
starts with these weights in its inner block. What it adds is fitted to what is left of the error, and its inner block
changes as far as that costs the smaller size less than it gains the larger one (`Gram.fit`). Teacher and one size are
in memory at a time. Last, the scale of every norm of each size is fitted to the weights that came out. With `auto`, the
refit is kept if it is closer than norms alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from prunus.console import Console
from prunus.models.folder import ModelFolder
from prunus.models.load import device_of, inference_dtype, load_model
from prunus.models.nest import Nested, norms_in, own_norms, read_nest, write_back, write_nest, write_size
from prunus.models.prefix import parts
from prunus.runtime import Runtime
from prunus.steps.prune.calibration import calibration_and_validation
from prunus.steps.prune.config import PruneConfig
from prunus.steps.prune.damage import divergence, fit_in_memory
from prunus.steps.prune.heal_checkpoint import CutInfo, heal_checkpoint
from prunus.steps.prune.heal_config import HealConfig
from prunus.steps.prune.nest_cut import SizeCut
from prunus.steps.prune.nest_order import in_order
from prunus.steps.prune.rank import Scores


def fit_sizes(
    config: PruneConfig, teacher: Path, out: Path, tokens: Path, cuts: Sequence[SizeCut], scores: Scores,
    runtime: Runtime, console: Console,
) -> None:  # fmt: skip
    """Fit the nest in `out`; with `heal: auto`, the refit is kept if it brings the sizes closer to the teacher.

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
    fit = _Fit(config, teacher, tokens, cuts, scores, runtime, console)
    explicit = config.heal.refit in ("outputs", "all")
    if explicit or (config.heal.refit == "auto" and fit.can_compare(out)):
        with TemporaryDirectory(dir=out) as scratch:
            tried = Path(scratch)
            _copy(out, tried)
            fit.refit(tried)
            fit.norms(tried)
            if not explicit:
                fit.norms(out)
            if explicit or fit.is_closer(tried, out):
                _copy(tried, out)
    else:
        fit.norms(out)


@dataclass(frozen=True)
class _Fit:
    """The arguments of `fit_sizes`, which every fit needs."""

    config: PruneConfig
    teacher: Path
    tokens: Path
    cuts: Sequence[SizeCut]
    scores: Scores
    runtime: Runtime
    console: Console

    def refit(self, folder: Path) -> None:
        """Refit all sizes of a nest, the smallest first."""
        config = self.config.model_copy(update={"heal": self.config.heal.effective})
        sizes = list(zip(read_nest(folder).sizes, self.cuts, strict=True))
        below: Nested | None = None
        for size, how in reversed(sizes):
            self.console.say(f"refit of {size.name}:")
            inner = tuple(parts(size.shape, below.shape, [size.layers.index(i) for i in below.layers])) if below else ()
            self._fit_size(folder, size, config, replace(self._info(how), inner=inner), config.heal)
            below = size

    def norms(self, folder: Path) -> None:
        """Fit the norms of all sizes, if they are to be; with `heal: auto`, where that brings the size closer."""
        if not self.config.heal.effective.norms:
            return
        for size, how in zip(read_nest(folder).sizes, self.cuts, strict=True):
            self.console.say(f"norms of {size.name}:")
            self._fit_size(folder, size, self.config, self._info(how), HealConfig(norms=True))

    def is_closer(self, tried: Path, before: Path) -> bool:
        """Whether the sizes of one nest are closer to the teacher than those of another, on validation sequences."""
        device = device_of(self.runtime)
        ids = self._validation()
        teacher = load_model(self.teacher, device, inference_dtype(self.runtime, device))

        def measured(folder: Path) -> list[float]:
            nest, found = read_nest(folder), []
            for size in nest.sizes:
                with TemporaryDirectory(dir=folder) as scratch:
                    write_size(nest, size, own_norms(nest, size), Path(scratch))
                    found.append(divergence(teacher, load_model(Path(scratch), device, torch.float32), ids))
            return found

        kls = [measured(folder) for folder in (before, tried)]
        closer = sum(kls[1]) < sum(kls[0])
        said = [", ".join(f"{kl:.4g}" for kl in each) for each in kls]
        outcome = "" if closer else "; the refit is discarded"
        self.console.say(f"refit: KL to the teacher {said[0]} with norms alone, {said[1]} with it{outcome}")
        return closer

    def can_compare(self, folder: Path) -> bool:
        """Whether text and memory suffice for `heal: auto`; shows what does not."""
        if not fit_in_memory((self.teacher, folder), self.runtime):
            self.console.warn("not refitted: there is too little free memory for both models")
            return False
        return len(self._validation()) > 0

    def _validation(self) -> torch.Tensor:
        return torch.from_numpy(calibration_and_validation(self.config, self.tokens)[1])

    def _info(self, how: SizeCut) -> CutInfo:
        return CutInfo(in_order(how.keep, how.order), how.rotation, self.scores)

    def _fit_size(self, folder: Path, size: Nested, config: PruneConfig, info: CutInfo, tried: HealConfig) -> None:
        """Fit one size of the nest in `folder`, and write it back."""
        nest = read_nest(folder)
        if size.name == nest.largest.name:
            heal_checkpoint(config, self.teacher, folder, self.tokens, info, self.runtime, self.console, tried)
            return
        with TemporaryDirectory(dir=folder) as scratch:
            alone, whole = Path(scratch) / "size", Path(scratch) / "nest"
            alone.mkdir()
            write_size(nest, size, own_norms(nest, size), alone)
            heal_checkpoint(config, self.teacher, alone, self.tokens, info, self.runtime, self.console, tried)
            norms = {one.name: own_norms(nest, one) for one in nest.smaller} | {size.name: norms_in(ModelFolder(alone))}
            if tried.refit != "none":
                whole.mkdir()
                write_back(nest, size, ModelFolder(alone), whole)
                _copy(whole, folder)
        write_nest(folder, nest.sizes, {f"{name}/{key}": x for name, own in norms.items() for key, x in own.items()})


def _copy(source: Path, target: Path) -> None:
    """Copy the files of a folder, in place of those of the same name."""
    for file in source.iterdir():
        if file.is_file():
            shutil.copyfile(file, target / file.name)

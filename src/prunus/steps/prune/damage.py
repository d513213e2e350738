"""Compares a student with its teacher right after the cut, on a few sequences of the corpus.

A cut that fails without an error (a bug, or a file with wrong contents) shows here within seconds, instead of after
hours of distillation.

S tokens of a sequence, V tokens of the vocabulary, K tokens of it that the student keeps
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, log
from pathlib import Path

import numpy as np
import psutil
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from prunus.errors import ModelError
from prunus.kd.losses import forward_kl
from prunus.models.folder import ModelFolder
from prunus.models.load import device_of, inference_dtype, load_model
from prunus.runtime import Runtime
from prunus.steps.prune.activations import LayerRunner

_LARGE_SHARE = 0.5  # a sound cut that keeps this share of the parameters is better than guessing
_MEMORY_SHARE = 0.9  # of the free memory that weights may fill; logits and activations need the rest
_UNIGRAM_TOKENS = 10_000_000  # tokens of the corpus that the unigram distribution is counted on


@dataclass(frozen=True)
class Damage:
    """Figures in nats per token, all on the same sequences.

    Attributes:
        kl: KL(teacher ‖ student); with a cut vocabulary, of the teacher's distribution over the student's tokens.
        nll: Negative log-likelihood of the student.
        teacher_nll: The teacher's.
        unigram_nll: That of the unigram distribution of the corpus.
        uniform_nll: That of guessing uniformly: the log of the vocabulary's size.
    """

    kl: float
    nll: float
    teacher_nll: float
    unigram_nll: float
    uniform_nll: float

    def check(self, kept: float, where: str) -> str | None:
        """Refuse a student that a fault destroyed, and return a warning for one that is worse than a unigram model.

        Before training, a correct cut can be worse than a unigram model, or than guessing: SmolLM2-135M with 15 of 30
        layers has an NLL of 10.5, where the unigram model has 7.3 and guessing 10.8; with 6 layers it has 11.6, and at
        a quarter of every width 15.5. So a cut is refused only if it keeps at least half of the parameters and is worse
        than guessing by more than the unigram model is better than guessing. With a bug in reading files, a cut to 504
        of its 576 channels had a KL of 12.2.

        Args:
            kept: The student's share of the teacher's non-embedding parameters.
            where: The step, for the message.

        Returns:
            A warning, or None.

        Raises:
            ModelError: The student is destroyed, or its logits are not finite.
        """
        figures = f"NLL {self.nll:.3f} nats per token (its teacher {self.teacher_nll:.3f}), KL {self.kl:.3f}"
        if not self.teacher_nll < self.unigram_nll:
            return f"on this text the teacher itself is not better than a unigram model: {figures}"
        too_much = self.nll > 2 * self.uniform_nll - self.unigram_nll
        if not isfinite(self.nll) or (too_much and kept >= _LARGE_SHARE):
            raise ModelError(
                f"{where}: this cut destroys the model: {figures}, far worse than guessing ({self.uniform_nll:.3f}), "
                f"though {kept:.0%} of its parameters are kept. To use it all the same, set check_samples: 0"
            )
        if self.nll > self.unigram_nll:
            return (
                f"before training, the student is worse than a unigram model: {figures}, unigram NLL "
                f"{self.unigram_nll:.3f}"
            )
        return None


def fit_in_memory(folders: Sequence[Path], runtime: Runtime) -> bool:
    """Whether models fit together into the free memory of their device."""
    device = device_of(runtime)
    needed = sum(ModelFolder(folder).shape.parameters for folder in folders) * inference_dtype(runtime, device).itemsize
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    return needed < _MEMORY_SHARE * free


@torch.no_grad()
def measure_damage(
    teacher: Path, student: Path, ids: np.ndarray, stream: np.ndarray, kept: np.ndarray | None, runtime: Runtime
) -> Damage | None:
    """Compare a student with its teacher, both in memory.

    Args:
        teacher: The teacher's folder.
        student: The student's folder.
        ids: The sequences, [N, S], as the teacher's token ids.
        stream: All tokens of the corpus, [T].
        kept: The token ids that the student keeps, [K], ascending; None if it keeps all.
        runtime: Device and precision.

    Returns:
        The figures, or None if no sequence consists only of kept tokens.
    """
    if kept is not None:
        ids = ids[np.isin(ids, kept).all(axis=1)]
    if not len(ids):
        return None
    device = device_of(runtime)
    models = [load_model(folder, device, inference_dtype(runtime, device)) for folder in (teacher, student)]
    columns = None if kept is None else torch.from_numpy(kept.astype(np.int64)).to(device)
    sums = torch.zeros(3, dtype=torch.float64)
    for row in torch.from_numpy(ids).to(device):  # one at a time: the logits of one are large enough
        logits_t = models[0](input_ids=row[None], use_cache=False).logits[0, :-1].float()
        labels = row
        if columns is not None:
            logits_t, labels = logits_t[:, columns], torch.searchsorted(columns, row)
        logits_s = models[1](input_ids=labels[None], use_cache=False).logits[0, :-1].float()
        logits_s = logits_s[:, : logits_t.shape[-1]]
        figures = (
            forward_kl(logits_s, logits_t).sum(),
            F.cross_entropy(logits_s, labels[1:], reduction="sum"),
            F.cross_entropy(logits_t, labels[1:], reduction="sum"),
        )
        sums += torch.stack([figure.double().cpu() for figure in figures])
    kl, nll, teacher_nll = (sums / (len(ids) * (ids.shape[1] - 1))).tolist()
    size = int(models[0].config.vocab_size)
    uniform = log(size if kept is None else len(kept))
    return Damage(kl, nll, teacher_nll, unigram_nll(stream[:_UNIGRAM_TOKENS], ids[:, 1:], size), uniform)


@torch.no_grad()
def divergence(teacher: PreTrainedModel, student: PreTrainedModel, ids: torch.Tensor) -> float:
    """KL(teacher ‖ student) of two models in memory on sequences [N, S], in nats per token; 0 if N is 0."""
    total = 0.0
    for row in ids:
        s, t = (model(input_ids=row[None].to(model.device)).logits.float() for model in (student, teacher))
        total += float(forward_kl(s, t).sum())
    return total / max(ids.numel(), 1)


@torch.no_grad()
def stream_divergence(teacher: LayerRunner, student: LayerRunner) -> float:
    """KL(teacher ‖ student) in nats per token, on sequences whose streams are after the last layer of both."""
    count, length = teacher.stream.shape[:2]
    total = 0.0
    for number in range(count):  # one at a time: the logits of one are large enough
        row = slice(number, number + 1)
        total += float(forward_kl(student.logits(row).float(), teacher.logits(row).float()).sum())
    return total / (count * length)


def unigram_nll(stream: np.ndarray, ids: np.ndarray, vocabulary: int) -> float:
    """NLL of `ids` under the token frequencies of `stream`, in nats per token, with add-one smoothing."""
    counts = np.bincount(stream, minlength=vocabulary) + 1.0
    return float(np.mean(np.log(counts.sum()) - np.log(counts[ids])))

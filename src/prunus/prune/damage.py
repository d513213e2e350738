"""What a cut did, before any training: how far the student is from its teacher on a few sequences of the corpus.

A cut that goes wrong without an error (a fault of ours, a file that is not what it says) shows here, in seconds, and
not after hours of distillation.

S tokens of a sequence, V tokens of the vocabulary, K tokens of it that the student keeps
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from prunus.errors import ModelError
from prunus.kd.losses import forward_kl
from prunus.models.load import device_of, inference_dtype, load_model
from prunus.runtime import Runtime

_COUNTED = 10_000_000  # tokens of the corpus that the unigram distribution is counted on


@dataclass(frozen=True)
class Damage:
    """Figures in nats per token, on the same sequences.

    Attributes:
        kl: KL(teacher ‖ student); of a cut vocabulary, given that the next token is one that the student has.
        nll: Negative log-likelihood by the student.
        teacher_nll: The same by the teacher.
        unigram_nll: The same by how often the corpus has each token: what can be known without reading.
        uniform_nll: The same by guessing, the log of the vocabulary's size.
    """

    kl: float
    nll: float
    teacher_nll: float
    unigram_nll: float
    uniform_nll: float

    def check(self, where: str) -> str | None:
        """Refuse a student that was destroyed; returns a warning for one that has hardly anything left.

        A legitimate deep cut can be worse than the unigram distribution before training (SmolLM2-135M with 15 of 30
        layers is), but not worse than guessing, unless its teacher is as well.

        Raises:
            ModelError: The student is worse than guessing, or its logits are not finite, and the teacher's are not.
        """
        figures = f"NLL {self.nll:.3f} nats per token (its teacher {self.teacher_nll:.3f}), KL {self.kl:.3f}"
        if not self.teacher_nll < self.unigram_nll:
            return f"the teacher itself is no better than word counts on this text: {figures}"
        if not self.nll < self.uniform_nll:
            raise ModelError(
                f"{where}: this cut destroys the model: {figures}, worse than guessing ({self.uniform_nll:.3f}). Keep "
                "more, or set check_samples: 0 to go on with it unchecked"
            )
        if self.nll > self.unigram_nll:
            return f"little is left before training: {figures}; word counts alone reach {self.unigram_nll:.3f}"
        return None


@torch.no_grad()
def measure_damage(
    teacher: Path, student: Path, ids: np.ndarray, stream: np.ndarray, kept: np.ndarray | None, runtime: Runtime
) -> Damage | None:
    """Hold a student against its teacher, both in memory.

    Args:
        teacher: The teacher's folder.
        student: The student's folder.
        ids: The sequences, [N, S], in the teacher's tokens.
        stream: All tokens of the corpus, [T].
        kept: The tokens that the student keeps, [K], ascending; None where it keeps all.
        runtime: Where.

    Returns:
        The figures, or None where no sequence consists of kept tokens alone.
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
        first = models[0](input_ids=row[None], use_cache=False).logits[0, :-1].float()
        labels = row
        if columns is not None:
            first, labels = first[:, columns], torch.searchsorted(columns, row)
        second = models[1](input_ids=labels[None], use_cache=False).logits[0, :-1].float()
        second = second[:, : first.shape[-1]]
        figures = (
            forward_kl(second, first).sum(),
            F.cross_entropy(second, labels[1:], reduction="sum"),
            F.cross_entropy(first, labels[1:], reduction="sum"),
        )
        sums += torch.stack([figure.double().cpu() for figure in figures])
    kl, nll, teacher_nll = (sums / (len(ids) * (ids.shape[1] - 1))).tolist()
    size = int(models[0].config.vocab_size)
    uniform = log(size if kept is None else len(kept))
    return Damage(kl, nll, teacher_nll, unigram_nll(stream[:_COUNTED], ids[:, 1:], size), uniform)


def unigram_nll(stream: np.ndarray, ids: np.ndarray, vocabulary: int) -> float:
    """What the frequencies in `stream` say of `ids`, in nats per token; each token is counted once more than it is."""
    counts = np.bincount(stream, minlength=vocabulary) + 1.0
    return float(np.mean(np.log(counts.sum()) - np.log(counts[ids])))

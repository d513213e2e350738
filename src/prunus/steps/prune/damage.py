"""What a cut did, before any training: how far the student is from its teacher on a few sequences of the corpus.

A cut that goes wrong without an error (a fault of ours, a file that is not what it says) shows here, in seconds, and
not after hours of distillation.

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

_LARGE = 0.5  # the share of a model from which a cut leaves more than guessing
_FILLED = 0.9  # of the free memory; logits and activations need some
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

    def check(self, kept: float, where: str) -> str | None:
        """Refuse a student that a fault destroyed; returns a warning for one that has hardly anything left.

        Before training a right cut may be worse than word counts, or than guessing: SmolLM2-135M with 15 of 30 layers
        has an NLL of 10.5 where word counts have 7.3 and guessing 10.8, with 6 layers 11.6, at a quarter of every width
        15.5. So only a cut that keeps half of the model is refused, where it is worse than guessing by more than word
        counts are better. A reader's fault left 504 of its 576 channels with a KL of 12.2.

        Args:
            kept: The student's share of the teacher's non-embedding parameters.
            where: The step, for the message.

        Raises:
            ModelError: The student is destroyed, or its logits are not finite.
        """
        figures = f"NLL {self.nll:.3f} nats per token (its teacher {self.teacher_nll:.3f}), KL {self.kl:.3f}"
        if not self.teacher_nll < self.unigram_nll:
            return f"the teacher itself is no better than word counts on this text: {figures}"
        too_much = self.nll > 2 * self.uniform_nll - self.unigram_nll
        if not isfinite(self.nll) or (too_much and kept >= _LARGE):
            raise ModelError(
                f"{where}: this cut destroys the model: {figures}, far worse than guessing ({self.uniform_nll:.3f}), "
                f"though {kept:.0%} of its parameters are kept. Set check_samples: 0 to go on with it unchecked"
            )
        if self.nll > self.unigram_nll:
            return f"little is left before training: {figures}; word counts alone reach {self.unigram_nll:.3f}"
        return None


def has_room(folders: Sequence[Path], runtime: Runtime) -> bool:
    """Whether models fit into what is free of the memory that they are loaded to."""
    device = device_of(runtime)
    needed = sum(ModelFolder(folder).shape.parameters for folder in folders) * inference_dtype(runtime, device).itemsize
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    return needed < _FILLED * free


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


@torch.no_grad()
def divergence(teacher: PreTrainedModel, student: PreTrainedModel, ids: torch.Tensor) -> float:
    """KL(teacher ‖ student) of two models in memory on sequences [N, S], in nats per token; 0 where there are none."""
    total = 0.0
    for row in ids:
        first, second = (model(input_ids=row[None].to(model.device)).logits.float() for model in (student, teacher))
        total += float(forward_kl(first, second).sum())
    return total / max(ids.numel(), 1)


def unigram_nll(stream: np.ndarray, ids: np.ndarray, vocabulary: int) -> float:
    """What the frequencies in `stream` say of `ids`, in nats per token; each token is counted once more than it is."""
    counts = np.bincount(stream, minlength=vocabulary) + 1.0
    return float(np.mean(np.log(counts.sum()) - np.log(counts[ids])))

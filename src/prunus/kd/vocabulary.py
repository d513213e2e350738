"""The tokens that student and teacher both have, where their vocabularies differ.

Two cases occur: a student whose vocabulary was cut, and two models of one family whose embeddings are padded to
different sizes. The student reads text as its own tokenizer cuts it, and the teacher reads the same tokens by its own
numbers. What is compared is the teacher's distribution *given that the next token is one that both have*: its mass on
all other tokens is left out, and the rest divided by what remains. How much is left out is measured and recorded as
`outside_vocabulary`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from prunus.errors import ModelError
from prunus.models.folder import ModelFolder
from prunus.models.head import Head
from prunus.models.load import load_tokenizer

_SHOWN = 5
_PROBE = 256  # tokens that the mass outside is measured on


@dataclass(frozen=True)
class SharedTokens:
    """Tokens that two vocabularies share.

    Attributes:
        ours: Their numbers in the student's, ascending, [n].
        theirs: Their numbers in the teacher's, [n].
        sizes: How many rows the LM heads of student and teacher have.
    """

    ours: torch.Tensor
    theirs: torch.Tensor
    sizes: tuple[int, int]

    def to_teacher(self, input_ids: torch.Tensor) -> torch.Tensor:
        """The teacher's numbers of the student's tokens."""
        table = torch.full((self.sizes[0],), -1, device=input_ids.device)
        table[self.ours.to(input_ids.device)] = self.theirs.to(input_ids.device)
        return table[input_ids]

    def heads(self, student: Head, teacher: Head) -> tuple[Head, Head]:
        """Both heads with the shared tokens' rows alone, in one order."""
        ours = student if len(self.ours) == self.sizes[0] else student.rows(self.ours.to(student.weight.device))
        return ours, teacher.rows(self.theirs.to(teacher.weight.device))

    @torch.no_grad()
    def outside(self, hidden: torch.Tensor, teacher: Head) -> torch.Tensor:
        """The teacher's mean mass on tokens that the student has not, over the first of some hidden states [N, D]."""
        few = hidden[:_PROBE].to(teacher.weight.dtype)
        shares = teacher.finish(few @ teacher.weight.T).float().softmax(dim=-1)
        return 1 - shares[:, self.theirs.to(shares.device)].sum(dim=-1).mean()

    def labels(self, labels: torch.Tensor) -> torch.Tensor:
        """Where among the shared tokens the student's tokens are; -100 stays."""
        table = torch.full((self.sizes[0],), -100, device=labels.device)
        table[self.ours.to(labels.device)] = torch.arange(len(self.ours), device=labels.device)
        return torch.where(labels >= 0, table[labels.clamp_min(0)], labels)


def shared_by(student: Path, teacher: Path) -> SharedTokens | None:
    """The tokens that two models share, from their folders; None where all are the same.

    Raises:
        ModelError: The student has tokens that the teacher has not.
    """
    names = [load_tokenizer(folder).get_vocab() for folder in (student, teacher)]
    sizes = [ModelFolder(folder).shape.vocab_size for folder in (student, teacher)]
    return shared_tokens(names[0], names[1], (sizes[0], sizes[1]))


def shared_tokens(
    student: Mapping[str, int], teacher: Mapping[str, int], sizes: tuple[int, int]
) -> SharedTokens | None:
    """The tokens of both vocabularies, or None where they are the same throughout.

    Args:
        student: Every token of the student's tokenizer and its number.
        teacher: The same of the teacher's.
        sizes: Rows of the two LM heads.

    Raises:
        ModelError: The student has tokens that the teacher has not, so there is no telling what it would say there.
    """
    foreign = [token for token, number in student.items() if number < sizes[0] and token not in teacher]
    if foreign:
        raise ModelError(
            f"distill: the tokenizers differ: {len(foreign)} of the student's {len(student)} tokens are not among the "
            f"teacher's {len(teacher)}, such as {', '.join(map(repr, sorted(foreign)[:_SHOWN]))}; allowed: the "
            "teacher's own vocabulary, or a part of it, as prune.vocab_size makes it"
        )
    pairs = sorted((number, teacher[token]) for token, number in student.items() if number < sizes[0])
    kept = [(ours, theirs) for ours, theirs in pairs if theirs < sizes[1]]
    if sizes[0] == sizes[1] and all(ours == theirs for ours, theirs in kept):
        return None
    if len(kept) < len(pairs):
        raise ModelError(f"distill: the teacher's LM head has {sizes[1]} rows, fewer than its tokenizer has tokens")
    ours, theirs = (torch.tensor(numbers) for numbers in zip(*kept, strict=True))
    return SharedTokens(ours, theirs, sizes)

"""The common tokens of a student and a teacher whose vocabularies differ.

There are two cases: a student whose vocabulary was pruned, and two models of one family whose embeddings are padded to
different sizes. The student reads the tokens of its own tokenizer; the teacher reads the same tokens by its own ids.
The loss compares with the teacher's distribution *conditioned on the next token being a common one*: its mass on all
other tokens is dropped and the rest renormalised. The dropped mass is measured and recorded as `outside_vocabulary`.
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
_PROBE = 256  # tokens on which the dropped mass is measured


@dataclass(frozen=True)
class SharedTokens:
    """The common tokens of two vocabularies.

    Attributes:
        ours: Their ids in the student's vocabulary, ascending, [n].
        theirs: Their ids in the teacher's vocabulary, [n].
        sizes: The numbers of rows of the LM heads of student and teacher.
    """

    ours: torch.Tensor
    theirs: torch.Tensor
    sizes: tuple[int, int]

    def to_teacher(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Convert the student's ids to the teacher's."""
        table = torch.full((self.sizes[0],), -1, device=input_ids.device)
        table[self.ours.to(input_ids.device)] = self.theirs.to(input_ids.device)
        return table[input_ids]

    def heads(self, student: Head, teacher: Head) -> tuple[Head, Head]:
        """Both heads with only the rows of the common tokens, in the same order."""
        ours = student if len(self.ours) == self.sizes[0] else student.rows(self.ours.to(student.weight.device))
        return ours, teacher.rows(self.theirs.to(teacher.weight.device))

    @torch.no_grad()
    def outside(self, hidden: torch.Tensor, teacher: Head) -> torch.Tensor:
        """The teacher's mean mass on tokens that the student lacks, over the first of its hidden states [N, D]."""
        few = hidden[:_PROBE].to(teacher.weight.dtype)
        shares = teacher.finish(few @ teacher.weight.T).float().softmax(dim=-1)
        return 1 - shares[:, self.theirs.to(shares.device)].sum(dim=-1).mean()

    def labels(self, labels: torch.Tensor) -> torch.Tensor:
        """Convert the student's ids to indices among the common tokens; -100 is kept."""
        table = torch.full((self.sizes[0],), -100, device=labels.device)
        table[self.ours.to(labels.device)] = torch.arange(len(self.ours), device=labels.device)
        return torch.where(labels >= 0, table[labels.clamp_min(0)], labels)


def shared_by(student: Path, teacher: Path) -> SharedTokens | None:
    """The common tokens of the models in two folders; None if the vocabularies are the same.

    Raises:
        ModelError: The student has tokens that the teacher lacks.
    """
    names = [load_tokenizer(folder).get_vocab() for folder in (student, teacher)]
    sizes = [ModelFolder(folder).shape.vocab_size for folder in (student, teacher)]
    return shared_tokens(names[0], names[1], (sizes[0], sizes[1]))


def shared_tokens(
    student: Mapping[str, int], teacher: Mapping[str, int], sizes: tuple[int, int]
) -> SharedTokens | None:
    """The common tokens of two vocabularies; None if these are the same.

    Args:
        student: The student's vocabulary: token to id.
        teacher: The teacher's vocabulary.
        sizes: The numbers of rows of the two LM heads.

    Raises:
        ModelError: The student has tokens that the teacher lacks, so that the teacher has no prediction for them.
    """
    foreign = [token for token, number in student.items() if number < sizes[0] and token not in teacher]
    if foreign:
        raise ModelError(
            f"distill: the tokenizers differ: {len(foreign)} of the student's {len(student)} tokens are not among the "
            f"teacher's {len(teacher)}, such as {', '.join(map(repr, sorted(foreign)[:_SHOWN]))}; allowed: the "
            "teacher's own vocabulary, or a part of it, as made by prune.vocab_size"
        )
    pairs = sorted((number, teacher[token]) for token, number in student.items() if number < sizes[0])
    kept = [(ours, theirs) for ours, theirs in pairs if theirs < sizes[1]]
    if sizes[0] == sizes[1] and all(ours == theirs for ours, theirs in kept):
        return None
    if len(kept) < len(pairs):
        raise ModelError(f"distill: the teacher's LM head has {sizes[1]} rows, fewer than its tokenizer has tokens")
    ours, theirs = (torch.tensor(numbers) for numbers in zip(*kept, strict=True))
    return SharedTokens(ours, theirs, sizes)

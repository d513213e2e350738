"""The common tokens of a student and a teacher whose vocabularies differ.

There are two cases: a student whose vocabulary was pruned, and two models of one family whose embeddings are padded to
different sizes. The student reads the tokens of its own tokenizer; the teacher reads the same tokens by its own ids.

A token that the student lacks is several tokens for the student. The student has to predict the first of them, so the
teacher's mass on the token is added to that first one. Without this, a student that lacks nothing but tokens equals its
target from the start and learns nothing. Mass on tokens without such a split, such as padding, is left out, and the
rest is renormalised. The mass on all tokens that the student lacks is recorded as `outside_vocabulary`.

C tokens of a chunk, n common tokens, m tokens that the student lacks
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from prunus.errors import ModelError
from prunus.models.folder import ModelFolder
from prunus.models.head import Head
from prunus.models.pretrained import load_tokenizer

_SHOWN = 5
_PROBE = 256  # tokens on which the mass on tokens that the student lacks is measured


def _none() -> torch.Tensor:
    return torch.empty(0, dtype=torch.long)


@dataclass(frozen=True)
class SharedTokens:
    """The common tokens of two vocabularies.

    Attributes:
        ours: Their ids in the student's vocabulary, ascending, [n].
        theirs: Their ids in the teacher's vocabulary, [n].
        sizes: The numbers of rows of the LM heads of student and teacher.
        lacking: The teacher's ids of tokens that the student splits into several, [m].
        first: The first token of each split, as an index among the common tokens, [m].
    """

    ours: torch.Tensor
    theirs: torch.Tensor
    sizes: tuple[int, int]
    lacking: torch.Tensor = field(default_factory=_none)
    first: torch.Tensor = field(default_factory=_none)

    def to_teacher(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Convert the student's ids to the teacher's."""
        table = torch.full((self.sizes[0],), -1, device=input_ids.device)
        table[self.ours.to(input_ids.device)] = self.theirs.to(input_ids.device)
        return table[input_ids]

    def heads(self, student: Head, teacher: Head) -> tuple[Head, Head]:
        """The student's head with the rows of the common tokens, and the teacher's head as `common` expects it."""
        ours = student if len(self.ours) == self.sizes[0] else student.rows(self.ours.to(student.weight.device))
        return ours, teacher if len(self.lacking) else teacher.rows(self.theirs.to(teacher.weight.device))

    def common(self, logits: torch.Tensor) -> torch.Tensor:
        """The teacher's logits of the common tokens, with the mass of the lacking ones: [C, its head] to [C, n]."""
        if not len(self.lacking):
            return logits
        theirs, lacking, first = (ids.to(logits.device) for ids in (self.theirs, self.lacking, self.first))
        peak = logits.amax(dim=-1, keepdim=True)
        mass = logits.new_zeros(len(logits), len(theirs))
        mass.index_add_(1, first, (logits[:, lacking] - peak).exp_())
        return torch.logaddexp(logits[:, theirs], mass.log_().add_(peak))

    @torch.no_grad()
    def outside(self, hidden: torch.Tensor, teacher: Head) -> torch.Tensor:
        """The teacher's mean mass on tokens that are not common, over the first of its hidden states [N, D]."""
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
    tokenizers = [load_tokenizer(folder) for folder in (student, teacher)]
    names = [tokenizer.get_vocab() for tokenizer in tokenizers]
    sizes = [ModelFolder(folder).shape.vocab_size for folder in (student, teacher)]
    return shared_tokens(names[0], names[1], (sizes[0], sizes[1]), first_piece(tokenizers[0]))


def first_piece(tokenizer: Any) -> Callable[[str], str | None]:
    """A function: a token of the teacher -> the first of the tokens into which the student's tokenizer splits it."""
    model = tokenizer.backend_tokenizer.model
    unknown = getattr(model, "unk_token", None)

    def first(token: str) -> str | None:
        pieces = model.tokenize(token)
        return pieces[0].value if pieces and pieces[0].value != unknown else None

    return first


def shared_tokens(
    student: Mapping[str, int],
    teacher: Mapping[str, int],
    sizes: tuple[int, int],
    first: Callable[[str], str | None] = lambda _: None,
) -> SharedTokens | None:
    """The common tokens of two vocabularies; None if these are the same.

    Args:
        student: The student's vocabulary: token to id.
        teacher: The teacher's vocabulary.
        sizes: The numbers of rows of the two LM heads.
        first: A token that the student lacks -> the first of the student's tokens for it; None if there is none.

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
    places = {number: place for place, (number, _) in enumerate(kept)}
    splits = [
        (number, places[student[piece]])
        for token, number in sorted(teacher.items(), key=lambda item: item[1])
        if token not in student and number < sizes[1] and (piece := first(token)) is not None and piece in student
    ]
    lacking, pieces = torch.tensor(splits, dtype=torch.long).reshape(-1, 2).unbind(dim=1)
    return SharedTokens(ours, theirs, sizes, lacking, pieces)

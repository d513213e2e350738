"""Hidden states of the student, held to the teacher's.

B batch, S sequence, H hidden of the student, D hidden of the teacher
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from prunus.kd.losses import cosine_distance, mean_squared_error, relative_error
from prunus.steps.distill.config import StatesConfig

DISTANCES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "relative": relative_error,
    "mse": mean_squared_error,
    "cosine": cosine_distance,
}


class StatesLoss(nn.Module):
    """The mean distance of pairs of states.

    Args:
        config: The options.
        pairs: Which are compared: numbers of the teacher's and of the student's.
        basis: B [D, H], which takes the teacher's states to the student's; None where it is not known.
        widths: D and H.
    """

    def __init__(
        self,
        config: StatesConfig,
        pairs: Sequence[tuple[int, int]],
        basis: torch.Tensor | None,
        widths: tuple[int, int],
    ) -> None:
        super().__init__()
        self.pairs, self.normalize = list(pairs), config.normalize
        self.distance = DISTANCES[config.distance]
        self.basis: torch.Tensor | None
        self.register_buffer("basis", basis if config.projection == "basis" else None, persistent=False)
        self.projection = nn.Linear(widths[1], widths[0], bias=False) if config.projection == "learned" else None
        if self.projection is not None and basis is not None:
            self.projection.weight.data.copy_(basis)

    def forward(self, student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor]) -> torch.Tensor:
        """The mean over pairs and tokens, from all states of both models: [B, S, H] and [B, S, D] each."""
        distances = []
        for i, j in self.pairs:
            theirs, ours = teacher[i].detach().float(), student[j].float()
            if self.basis is not None:
                theirs = theirs @ self.basis
            if self.projection is not None:
                ours = self.projection(ours)
            if self.normalize:
                theirs, ours = (F.rms_norm(state, state.shape[-1:]) for state in (theirs, ours))
            distances.append(self.distance(ours, theirs).mean())
        return torch.stack(distances).mean()

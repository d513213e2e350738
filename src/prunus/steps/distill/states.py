"""The loss between hidden states of student and teacher.

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
        pairs: The pairs of states to compare, (teacher, student); see `StatesConfig.pairs`.
        basis: B [D, H], which projects the teacher's states to the student's; None if it is not known.
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
        """The mean distance over pairs and tokens.

        Args:
            student: All states of the student, [B, S, H] each.
            teacher: All states of the teacher, [B, S, D] each.
        """
        distances = []
        for i, j in self.pairs:
            state_t, state_s = teacher[i].detach().float(), student[j].float()
            if self.basis is not None:
                state_t = state_t @ self.basis
            if self.projection is not None:
                state_s = self.projection(state_s)
            if self.normalize:
                state_t, state_s = (F.rms_norm(state, state.shape[-1:]) for state in (state_t, state_s))
            distances.append(self.distance(state_s, state_t).mean())
        return torch.stack(distances).mean()
